import pytest

from svd.curation.films import FILMS, fetch_film
from svd.curation.photos import PHOTOS, fetch_photo, read_photo
from svd.media.probe import probe_video


@pytest.mark.network
@pytest.mark.parametrize("name", FILMS)
def test_the_pinned_films_are_still_published(name, tmp_path) -> None:
    probe = probe_video(fetch_film(name, tmp_path)).probe
    assert (probe.width, probe.height, probe.fps, probe.num_frames) == (1280, 720, 24, 14_315)


@pytest.mark.network
def test_the_pinned_photographs_are_still_published(tmp_path) -> None:
    for name in PHOTOS:
        assert min(read_photo(fetch_photo(name, tmp_path)).shape[:2]) >= 300


def test_every_photograph_names_its_licence_and_author() -> None:
    assert all(photo.licence and photo.credit for photo in PHOTOS.values())
