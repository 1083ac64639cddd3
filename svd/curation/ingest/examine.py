"""One candidate, from its bytes to a raw video or the reason why it is none."""

import fcntl
import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import cv2

from svd.config.ingest import ProbeLimits
from svd.curation.ingest.candidates import Candidate, LocalFile, Obtained
from svd.errors import MediaError, is_disk_full
from svd.media.probe import Probed, probe_video
from svd.runtime.fingerprint import file_sha256
from svd.types.base import Record
from svd.types.video import RawVideo, RejectedFile

Transfer = Literal["copy", "hardlink", "none"]

_FICLONE: Final = 0x40049409  # ioctl that shares a file's blocks. Source: Linux, ioctl_ficlone(2)
_CHUNK: Final = 8 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Task:
    """What a process needs to examine one candidate.

    Attributes:
        candidate: What to examine.
        slot: Folder for this candidate alone; removed afterwards.
        videos: Where a usable video goes, named by its content.
        limits: What counts as usable.
        transfer: How a file that is not ours gets there; "none" leaves it where it is.
    """

    candidate: Candidate
    slot: Path
    videos: Path
    limits: ProbeLimits
    transfer: Transfer


class Examined(Record):
    """The outcome for one candidate: exactly one of the two."""

    video: RawVideo | None = None
    rejected: RejectedFile | None = None


def examine(task: Task) -> Examined:
    """Obtain, probe and keep one candidate; whatever is wrong with it becomes a record."""
    cv2.setNumThreads(1)  # the pool is what is parallel
    shutil.rmtree(task.slot, ignore_errors=True)
    task.slot.mkdir(parents=True)
    try:
        obtained = task.candidate.obtain(task.slot)
    except MediaError as err:
        return refuse(task.candidate, err.reason, err.detail)
    try:
        return _keep(task, obtained)
    except MediaError as err:
        return refuse(task.candidate, err.reason, err.detail, path=obtained.path)
    finally:
        shutil.rmtree(task.slot, ignore_errors=True)


def refuse(candidate: Candidate, reason: str, detail: str, *, path: Path | None = None) -> Examined:
    """Return the outcome of a candidate that is no raw video.

    Args:
        candidate: What was examined.
        reason: Machine-readable class of the fault.
        detail: The sentence a person reads.
        path: Its bytes, if there are any; they are hashed for the record.
    """
    if path is None and isinstance(candidate, LocalFile):
        path = candidate.path
    size, sha256 = _identify(path)
    rejected = RejectedFile(
        origin=candidate.origin, sha256=sha256, size_bytes=size, reason=reason, detail=detail
    )
    return Examined(rejected=rejected)


def _keep(task: Task, obtained: Obtained) -> Examined:
    path = obtained.path
    before = _version(path)
    probed = probe_video(path, task.limits)
    try:
        uri, sha256 = _transfer(task, obtained, probed)
    except OSError as err:
        if is_disk_full(err):
            raise
        raise MediaError(str(path), "unreadable", err.strerror or str(err)) from err
    if not obtained.is_ours and _version(path) != before:
        raise MediaError(str(path), "changed-while-read", "someone was writing to the file")
    video = RawVideo(
        video_id=sha256,
        uri=uri,
        origin=task.candidate.origin,
        licence=task.candidate.licence,
        size_bytes=before[0],
        probe=probed.probe,
    )
    return Examined(video=video)


def _version(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as err:
        raise MediaError(str(path), "unreadable", err.strerror or str(err)) from err
    return status.st_size, status.st_mtime_ns


def _transfer(task: Task, obtained: Obtained, probed: Probed) -> tuple[str, str]:
    """Put the file where the index will say it is; return its uri and sha256 (hex)."""
    if task.transfer == "none" and not obtained.is_ours:
        return _uri_in_place(obtained.path), file_sha256(obtained.path)
    staged = task.slot / f"kept{probed.suffix}"
    if obtained.is_ours:
        obtained.path.rename(staged)
        sha256 = file_sha256(staged)
    elif task.transfer == "hardlink" and _link(obtained.path, staged):
        sha256 = file_sha256(staged)
    else:
        sha256 = _copy(obtained.path, staged)
    name = f"{sha256}{probed.suffix}"
    staged.replace(task.videos / name)
    return f"{task.videos.name}/{name}", sha256


def _uri_in_place(path: Path) -> str:
    uri = str(path)
    try:
        uri.encode("utf-8")
    except UnicodeEncodeError as err:
        raise MediaError(
            uri, "name-not-utf8", "rename it, or set ingest.copy_videos to keep a copy"
        ) from err
    return uri


def _link(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        return False
    return True


def _copy(source: Path, target: Path) -> str:
    """Copy a file, sharing its blocks where the file system can; return the copy's sha256."""
    with source.open("rb") as reader, target.open("xb") as writer:
        try:
            fcntl.ioctl(writer.fileno(), _FICLONE, reader.fileno())
        except OSError:
            digest = hashlib.sha256()
            while chunk := reader.read(_CHUNK):
                digest.update(chunk)
                writer.write(chunk)
            return digest.hexdigest()
    return file_sha256(target)


def _identify(path: Path | None) -> tuple[int | None, str | None]:
    """Return size and sha256 of a file, as far as it can be read."""
    if path is None:
        return None, None
    size = None
    try:
        size = path.stat().st_size
        return size, file_sha256(path)
    except OSError:
        return size, None
