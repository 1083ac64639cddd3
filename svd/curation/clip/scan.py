"""The one decode pass: every measurement that needs pixels is taken from the same frames."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np

from svd.config.curation import BankConfig, CutConfig
from svd.curation.clip.flow import FlowMeter, PairFlow
from svd.curation.clip.runs import Segment
from svd.curation.clip.track import (
    THUMB_HEIGHT,
    THUMB_WIDTH,
    BankFrame,
    FrameTrack,
    SegmentScan,
    sample_cell,
)
from svd.media.decode import (
    DecodeErrors,
    PictureMaker,
    TimedFrame,
    decode_frames,
    fit_short_side,
)
from svd.types.video import VideoProbe

DETECTOR_SIDE_PX = 256  # longer side of the detectors' picture; PySceneDetect downscales likewise


def scan_segments(
    path: Path,
    segments: Sequence[Segment],
    probe: VideoProbe,
    *,
    cuts: CutConfig,
    bank: BankConfig,
) -> Iterator[SegmentScan]:
    """Decode consecutive segments once and measure everything that needs their pixels.

    The scan of a segment runs on beyond its end until it has met the next one's first sample at
    every rate, so the joined segments hold exactly what one unbroken pass would. A segment in
    which nothing decodes gives an empty scan.

    Args:
        path: The video.
        segments: A run, or a part of one that starts where decoding can start.
        probe: Of the video.
        cuts: Rates of the detectors.
        bank: What is kept.

    Raises:
        MediaError: The file cannot be read.
    """
    errors = DecodeErrors()
    waiting = deque(segments)
    active: deque[_Scanner] = deque()
    before = segments[0].previous_pts
    for pts, frame in _frames_from(path, segments[0], errors):
        while waiting and (waiting[0].start_pts is None or pts >= waiting[0].start_pts):
            segment = replace(waiting.popleft(), previous_pts=before)
            active.append(_Scanner(segment, probe, cuts=cuts, bank=bank))
        complete = [scanner.add(pts, frame) for scanner in active]
        while active and complete.pop(0):
            yield active.popleft().finish(errors)
        if not active and not waiting:
            return
        before = pts
    while waiting:
        active.append(_Scanner(waiting.popleft(), probe, cuts=cuts, bank=bank))
    for scanner in active:
        yield scanner.finish(errors)


def _frames_from(path: Path, segment: Segment, errors: DecodeErrors) -> Iterator[TimedFrame]:
    """Yield frames from the segment's start; read from the beginning if seeking misses it."""
    if segment.start_pts is None:
        yield from decode_frames(path, errors=errors)
        return
    frames = decode_frames(path, start_pts=segment.start_pts, errors=errors)
    first = next(frames, None)
    if first is not None and first.pts == segment.start_pts:
        yield first
        yield from frames
        return
    frames.close()
    for timed in decode_frames(path, errors=errors):
        if timed.pts >= segment.start_pts:
            yield timed


class _Sampler:
    """Says which frames are samples at one rate."""

    def __init__(self, segment: Segment, probe: VideoProbe, rate_hz: int) -> None:
        self._start_pts = probe.start_pts
        self._time_base = probe.time_base
        self._rate_hz = rate_hz
        before = segment.previous_pts
        self._last_cell = None if before is None else self._cell(before)

    def _cell(self, pts: int) -> int:
        return sample_cell(
            pts, start_pts=self._start_pts, time_base=self._time_base, rate_hz=self._rate_hz
        )

    def takes(self, pts: int) -> bool:
        """Return whether this frame is the first of its cell; to be asked once per frame."""
        cell = self._cell(pts)
        is_first = self._last_cell is None or cell > self._last_cell
        self._last_cell = cell
        return is_first


class _ContentScores:
    """Content scores between the samples of one rate.

    The score is PySceneDetect's: mean absolute difference in hue, saturation and value.
    """

    def __init__(self, takes: Callable[[int], bool]) -> None:
        self._takes = takes
        self._last: np.ndarray | None = None
        self.pts: list[int] = []
        self.scores: list[float] = []

    def add(self, pts: int, hsv: np.ndarray) -> bool:
        """Score the frame if it is a sample; return whether it was."""
        if not self._takes(pts):
            return False
        if self._last is not None:
            self.pts.append(pts)
            self.scores.append(cv2.norm(hsv, self._last, cv2.NORM_L1) / hsv.size)
        self._last = hsv
        return True


class _Scanner:
    def __init__(
        self, segment: Segment, probe: VideoProbe, *, cuts: CutConfig, bank: BankConfig
    ) -> None:
        self._stop_pts = segment.stop_pts
        scale = min(1.0, DETECTOR_SIDE_PX / max(probe.width, probe.height))
        self._detector_picture = PictureMaker(
            width=max(2, round(probe.width * scale)),
            height=max(2, round(probe.height * scale)),
            rotation=probe.rotation,
            interpolation="FAST_BILINEAR",
        )
        self._native = _ContentScores(lambda _: True)
        self._mid = _ContentScores(_Sampler(segment, probe, cuts.mid_rate_hz).takes)
        self._low = _ContentScores(_Sampler(segment, probe, cuts.low_rate_hz).takes)
        self._bank = _BankScanner(segment, probe, bank)
        self._open = {"native", "mid", "low", "bank"}  # not yet past the end
        self.pts: list[int] = []
        self._mean_rgb: list[float] = []
        self._contrast: list[float] = []
        self._thumbs: list[np.ndarray] = []

    def add(self, pts: int, frame: av.VideoFrame) -> bool:
        """Measure a frame; return whether the segment is complete."""
        is_beyond = self._stop_pts is not None and pts >= self._stop_pts
        picture = self._detector_picture(frame)
        hsv = cv2.cvtColor(picture, cv2.COLOR_BGR2HSV)
        took = set()
        for name, scores in (("native", self._native), ("mid", self._mid), ("low", self._low)):
            if name in self._open and scores.add(pts, hsv):
                took.add(name)
        if "bank" in self._open and self._bank.add(pts, frame, keep=not is_beyond):
            took.add("bank")
        if is_beyond:
            self._open -= took
            return not self._open
        self._measure(pts, picture)
        return False

    def _measure(self, pts: int, picture: np.ndarray) -> None:
        luma = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        self.pts.append(pts)
        self._mean_rgb.append(sum(cv2.mean(picture)[:3]) / 3)
        self._contrast.append(float(cv2.meanStdDev(luma)[1][0, 0]))
        self._thumbs.append(
            cv2.resize(luma, (THUMB_WIDTH, THUMB_HEIGHT), interpolation=cv2.INTER_AREA)
        )

    def finish(self, errors: DecodeErrors) -> SegmentScan:
        """Return what was measured, with the decoder's errors since the last segment."""
        counted = errors.take()
        pairs = self._bank.pairs
        track = FrameTrack(
            pts=np.array(self.pts, dtype=np.int64),
            mean_rgb=np.array(self._mean_rgb, dtype=np.float32),
            contrast=np.array(self._contrast, dtype=np.float32),
            thumbs=np.array(self._thumbs, dtype=np.uint8).reshape(-1, THUMB_HEIGHT, THUMB_WIDTH),
            native_pts=np.array(self._native.pts, dtype=np.int64),
            native_score=np.array(self._native.scores, dtype=np.float32),
            mid_pts=np.array(self._mid.pts, dtype=np.int64),
            mid_score=np.array(self._mid.scores, dtype=np.float32),
            low_pts=np.array(self._low.pts, dtype=np.int64),
            low_score=np.array(self._low.scores, dtype=np.float32),
            flow_pts=np.array(self._bank.pair_pts, dtype=np.int64).reshape(-1, 2),
            dis_px=np.array([pair.dis_px for pair in pairs], dtype=np.float32),
            farneback_px=np.array([pair.farneback_px for pair in pairs], dtype=np.float32),
            dis_map=self._bank.stack_maps([pair.dis_map for pair in pairs]),
            farneback_map=self._bank.stack_maps([pair.farneback_map for pair in pairs]),
        )
        return SegmentScan(
            track=track,
            frames=tuple(self._bank.frames),
            num_bad_packets=counted.num_bad_packets,
            num_damaged_frames=counted.num_damaged_frames,
            message=counted.first_message,
        )


class _BankScanner:
    """Pictures and flow of the frames sampled for the bank."""

    def __init__(self, segment: Segment, probe: VideoProbe, bank: BankConfig) -> None:
        self._bank = bank
        self._takes = _Sampler(segment, probe, bank.rate_hz).takes
        self._start_pts = probe.start_pts
        self._time_base = probe.time_base
        width, height = fit_short_side(probe.width, probe.height, bank.short_side_px)
        self._picture = PictureMaker(width=width, height=height, rotation=probe.rotation)
        still_width, still_height = fit_short_side(
            probe.width, probe.height, bank.still_short_side_px
        )
        self._still = PictureMaker(width=still_width, height=still_height, rotation=probe.rotation)
        self._flow = FlowMeter(
            width, height, flow_side_px=bank.flow_short_side_px, map_side_px=bank.map_short_side_px
        )
        self._last_pts: int | None = None
        self.frames: list[BankFrame] = []
        self.pair_pts: list[tuple[int, int]] = []
        self.pairs: list[PairFlow] = []

    def add(self, pts: int, frame: av.VideoFrame, *, keep: bool) -> bool:
        """Measure the frame if it is a sample; return whether it was.

        Args:
            pts: When it is shown.
            frame: The frame.
            keep: Whether its picture belongs to this segment.
        """
        if not self._takes(pts):
            return False
        picture = self._picture(frame)
        pair = self._flow.add(picture)
        if pair is not None and self._last_pts is not None:
            self.pairs.append(pair)
            self.pair_pts.append((self._last_pts, pts))
        self._last_pts = pts
        if keep:
            self.frames.append(
                BankFrame(pts=pts, jpeg=self._encode(picture), still=self._encode_still(pts, frame))
            )
        return True

    def stack_maps(self, maps: list[np.ndarray]) -> np.ndarray:
        """Return maps as one array, also when there are none."""
        shape = (0, *self._flow.map_size[::-1], 2)
        return np.stack(maps) if maps else np.zeros(shape, dtype=np.float16)

    def _encode_still(self, pts: int, frame: av.VideoFrame) -> bytes | None:
        cell = sample_cell(
            pts,
            start_pts=self._start_pts,
            time_base=self._time_base,
            rate_hz=self._bank.rate_hz,
        )
        return None if cell % self._bank.still_every else self._encode(self._still(frame))

    def _encode(self, picture: np.ndarray) -> bytes:
        quality = [cv2.IMWRITE_JPEG_QUALITY, self._bank.jpeg_quality]
        return bytes(cv2.imencode(".jpg", picture, quality)[1])
