from pathlib import Path

import pytest

from svd.errors import IntegrityError, MissingInputError
from svd.evaluation.datasets.base import Dataset, clip_id_of
from svd.evaluation.datasets.motionhd_local import bin_by_motion
from svd.evaluation.datasets.objects import GSO, elevation_of
from svd.evaluation.datasets.vbench import VIDEOS_PER_PROMPT
from svd.evaluation.protocols.catalogue import PROTOCOLS
from svd.evaluation.reading import read_window

DATASETS = {one.card.dataset.name: one.card.dataset for one in PROTOCOLS.values()}
ITEMS_EACH = {"VBench": VIDEOS_PER_PROMPT, "VBench-I2V": VIDEOS_PER_PROMPT, "Physics-IQ": 3}


@pytest.fixture(params=list(DATASETS.values()), ids=list(DATASETS), scope="module")
def written(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Dataset, Path]:
    folder = tmp_path_factory.mktemp("data")
    request.param.write_small(folder, 3)
    return request.param, folder


def test_what_a_writer_writes_its_reader_finds(written: tuple[Dataset, Path]) -> None:
    dataset, folder = written
    listing = dataset.listed(folder)
    assert len(listing.items) == 3 * ITEMS_EACH.get(dataset.name, 1)
    assert len({item.clip_id for item in listing.items}) == len(listing.items)
    for item in listing.items:
        assert not item.path or (folder / item.path).exists()


def test_a_few_clips_are_never_the_published_split(written: tuple[Dataset, Path]) -> None:
    dataset, folder = written
    assert dataset.listed(folder).split is None


def test_the_data_hash_sees_a_changed_file(written: tuple[Dataset, Path]) -> None:
    dataset, folder = written
    before = dataset.listed(folder)
    assert dataset.listed(folder).sha256 == before.sha256
    videos = [folder / item.path for item in before.items if (folder / item.path).is_file()]
    if not videos:
        return  # prompts and folders of pictures have no file of their own
    content = videos[0].read_bytes()
    videos[0].write_bytes(content + b"x")
    assert dataset.listed(folder).sha256 != before.sha256
    videos[0].write_bytes(content)


@pytest.mark.parametrize("dataset", DATASETS.values(), ids=list(DATASETS))
def test_a_folder_of_something_else_is_told_the_expected_layout(
    dataset: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(MissingInputError) as caught:
        dataset.listed(tmp_path)
    assert dataset.layout in str(caught.value)
    assert dataset.how_to_get in str(caught.value)


def test_names_for_files_do_not_meet() -> None:
    assert clip_id_of("v_Archery_g01_c01") == "v_Archery_g01_c01"
    names = ["a b", "a_b", "a/b", "../a", "x" * 300, "x" * 301, ""]
    made = {clip_id_of(name) for name in names}
    assert len(made) == len(names)
    assert all("/" not in name and len(name) < 90 for name in made)


def test_motion_bins_hold_equal_counts_in_order() -> None:
    bins = bin_by_motion([5.0, 1.0, 9.0, 3.0, 7.0, 2.0], 3)
    assert bins == [1, 0, 2, 1, 2, 0]


def test_a_broken_list_of_prompts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "VBench_full_info.json").write_text('[{"prompt": "x"}]')
    with pytest.raises(IntegrityError, match="prompt_en"):
        DATASETS["VBench"].listed(tmp_path)


def test_a_window_is_the_frames_it_names(tmp_path: Path) -> None:
    DATASETS["OpenVid-1M"].write_small(tmp_path, 1)
    path = next((tmp_path / "video").glob("*.mp4"))
    whole = read_window(path)
    assert (read_window(path, start_frame=5, num_frames=4) == whole[5:9]).all()


def test_an_orbit_says_how_high_its_camera_stands(tmp_path):
    GSO.write_small(tmp_path, 1)
    assert elevation_of(tmp_path / "gso" / "Painted_Mug_0") == 10.0
    assert elevation_of(tmp_path) is None
    (tmp_path / "meta.json").write_text('{"elevation_deg": 120}')
    with pytest.raises(IntegrityError, match="no angle from -90 to 90"):
        elevation_of(tmp_path)
