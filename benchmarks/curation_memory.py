"""Peak memory of a curation worker on a two-hour 1080p source: index, decode, cut and clip.

The source is real: ten seconds of encoded 1080p whose packets are repeated to two hours. All of it
is indexed, cut and copied. Of its runs one is decoded; what that gave is stored for the others
too, with their times, for the memory of a run does not depend on where it lies. Two segments
decoded by one worker stand for a film that has no keyframes.

Usage: python benchmarks/curation_memory.py [--minutes 120]
"""

import argparse
import json
import multiprocessing as mp
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import av
import cv2
import numpy as np

from svd.config.curation import ClipConfig
from svd.curation.clip.clip_video import (
    ClipResult,
    ClipTask,
    EncodeTask,
    FinishedVideo,
    FinishTask,
    IndexedVideo,
    IndexTask,
    ScanTask,
    do_task,
)
from svd.curation.clip.scan import Segment
from svd.curation.clip.track import SegmentScan, load_segment, save_segment
from svd.media.decode import index_packets
from svd.media.encode import write_video
from svd.media.probe import probe_video
from svd.types.video import RawVideo

WIDTH, HEIGHT, FPS = 1920, 1080, 24
CONFIG = ClipConfig(min_clip_s=2.0, max_clip_s=10.0, reencode_preset="veryfast")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=int, default=120)
    minutes = parser.parse_args().minutes
    highest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for step, mib in measure(Path(folder), minutes=minutes):
            print(f"{step:<44} {mib:6.0f} MiB", flush=True)
            highest = max(highest, mib)
    print(json.dumps({"minutes": minutes, "peak_rss_mib": round(highest)}))


def measure(root: Path, *, minutes: int) -> Iterator[tuple[str, float]]:
    """Yield each step with the peak resident memory (MiB) of a process that does it alone."""
    short = root / "short.mp4"
    write_video(short, pictures(10 * FPS), FPS, crf=30, gop=2 * FPS, preset="ultrafast")
    path = repeat(short, root / "long.mp4", times=6 * minutes)
    video = raw_video(path)
    indexed, peak = alone(IndexTask(path, CONFIG))
    yield f"index, {minutes} min", peak
    assert isinstance(indexed, IndexedVideo)
    segments = [segment for run in indexed.runs for segment in run]
    targets = tuple(root / "scan" / f"{number:05d}.npz" for number in range(len(segments)))
    _, peak = alone(ScanTask(video, path, indexed.runs[0], CONFIG, targets[:1]))
    yield "decode, one run", peak
    spread(targets, segments, path)
    (root / "out" / "clips").mkdir(parents=True)
    finished, peak = alone(FinishTask(video, path, targets, CONFIG, root / "out"))
    assert isinstance(finished, FinishedVideo)
    yield f"cut and copy, {minutes} min, {len(finished.clips)} clips", peak
    for clip in finished.clips[:2]:
        (root / "out" / clip.uri).unlink()
    spans = tuple(clip.span for clip in finished.clips[:2])
    yield "re-encode, two clips", alone(EncodeTask(video, path, spans, CONFIG, root / "out"))[1]

    several = tuple(segments[:2])  # as where a film has no keyframe in two minutes
    names = tuple(root / "single" / f"{number}.npz" for number in range(len(several)))
    _, peak = alone(ScanTask(video, path, several, CONFIG, names))
    yield f"decode, one run of {len(several)} segments", peak


def pictures(num_frames: int) -> Iterator[np.ndarray]:
    """Yield frames (H, W, 3): a new picture every five seconds; memory asks for no more."""
    for number in range(num_frames):
        shot, frame = divmod(number, 5 * FPS)
        if frame == 0:
            small = np.random.default_rng(shot).integers(0, 256, (HEIGHT // 60, WIDTH // 48, 3))
            picture = cv2.resize(small.astype(np.uint8), (WIDTH, HEIGHT))
        yield picture


def repeat(path: Path, target: Path, *, times: int) -> Path:
    """Copy a video's packets again and again, one time behind the other."""
    with av.open(str(path)) as source, av.open(str(target), "w") as out:
        packets = [packet for packet in source.demux(source.streams.video[0]) if packet.size]
        stream = out.add_stream_from_template(source.streams.video[0])
        stream.time_base = packets[0].time_base
        length = len(packets) * packets[0].duration
        for turn in range(times):
            for packet in packets:
                copy = av.Packet(bytes(packet))
                copy.stream, copy.time_base = stream, packet.time_base
                copy.duration, copy.is_keyframe = packet.duration, packet.is_keyframe
                copy.pts, copy.dts = packet.pts + turn * length, packet.dts + turn * length
                out.mux(copy)
    return target


def raw_video(path: Path) -> RawVideo:
    return RawVideo(
        video_id=path.stem,
        uri=str(path),
        origin=path.name,
        licence="CC0-1.0",
        size_bytes=path.stat().st_size,
        probe=probe_video(path).probe,
    )


def spread(targets: Sequence[Path], segments: Sequence[Segment], path: Path) -> None:
    """Store the first segment's scan for every segment, with the times of the latter."""
    scan = load_segment(targets[0])
    length = len(scan.track.pts)
    pts = np.sort(index_packets(path).pts)
    for segment, target in zip(segments[1:], targets[1:], strict=True):
        first = int(np.searchsorted(pts, segment.start_pts))
        shift = int(pts[first] - scan.track.pts[0])
        assert len(pts) >= first + length
        save_segment(target, shifted(scan, shift))


def shifted(scan: SegmentScan, ticks: int) -> SegmentScan:
    """Return a scan as of a later stretch of the video."""
    times = {
        name: getattr(scan.track, name) + ticks
        for name in scan.track.dump()
        if name.endswith("pts")
    }
    frames = tuple(replace(frame, pts=frame.pts + ticks) for frame in scan.frames)
    return replace(scan, track=replace(scan.track, **times), frames=frames)


def alone(task: ClipTask) -> tuple[ClipResult, float]:
    """Do a task in a process of its own; return its result and the process's peak RSS in MiB."""
    context = mp.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, task))
    process.start()
    result, peak = ours.recv()
    process.join()
    return result, peak


def _serve(connection: Connection, task: ClipTask) -> None:
    cv2.setNumThreads(1)
    result = do_task(task)
    # Not getrusage: its maximum is inherited from the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (peak_kib,) = (line.split()[1] for line in status if line.startswith("VmHWM:"))
    connection.send((result, int(peak_kib) / 1024))


if __name__ == "__main__":
    main()
