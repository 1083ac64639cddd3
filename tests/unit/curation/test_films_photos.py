import av
import numpy as np
import pytest

from svd.curation.ingest.films import FILMS, copy_between_keyframes, fetch_film
from svd.curation.ingest.photos import PHOTOS, fetch_photo, read_photo
from svd.errors import MediaError
from svd.media.probe import probe_video


def frames_of(path) -> np.ndarray:
    with av.open(path) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


@pytest.mark.parametrize(
    ("start_s", "stop_s", "frames"),
    [
        (0.0, None, (0, 60)),
        (0.5, None, (12, 60)),
        (0.6, 1.4, (24, 36)),
        (0.0, 0.5, (0, 12)),
        (0.0, 0.1, (0, 12)),
        (2.0, 99.0, (48, 60)),
    ],
)
def test_a_part_runs_from_keyframe_to_keyframe(media, start_s, stop_s, frames) -> None:
    film = media.video(num_frames=60, fps=24, gop=12)
    part = media.folder / "part.mp4"
    copy_between_keyframes(film, part, start_s=start_s, stop_s=stop_s)
    assert np.array_equal(frames_of(part), frames_of(film)[slice(*frames)])
    probe = probe_video(part).probe
    assert (probe.start_pts, probe.fps, probe.has_audio) == (0, 24, False)


def test_a_part_beyond_the_last_keyframe_is_refused(media) -> None:
    film = media.video(num_frames=24)
    with pytest.raises(MediaError, match="no-keyframe"):
        copy_between_keyframes(film, media.folder / "part.mp4", start_s=0.5, stop_s=None)


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("name", FILMS)
def test_the_pinned_films_are_still_published(name, tmp_path) -> None:
    probe = probe_video(fetch_film(name, tmp_path)).probe
    assert (probe.width, probe.height, probe.fps, probe.num_frames) == (1280, 720, 24, 14_315)


@pytest.mark.slow
@pytest.mark.network
def test_the_pinned_photographs_are_still_published(tmp_path) -> None:
    for name in PHOTOS:
        assert min(read_photo(fetch_photo(name, tmp_path)).shape[:2]) >= 300


def test_every_photograph_names_its_licence_and_author() -> None:
    assert all(photo.licence and photo.credit for photo in PHOTOS.values())
