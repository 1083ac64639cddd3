"""What all parts of a protocol run share: data, source, networks, and where files go."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from svd.config.evaluation import BootstrapConfig
from svd.errors import MissingInputError
from svd.evaluation.extractors.base import VideoExtractor
from svd.evaluation.measures.video_distance import damage
from svd.evaluation.protocols.networks import Networks
from svd.evaluation.protocols.sources import VideoSource
from svd.evaluation.tensor_store import TensorStore
from svd.media.encode import write_video
from svd.types.protocol import PlannedClip

NUM_CONTROLS = 8  # real clips that are damaged for the control rows
CONTROL_NOISE_STD = 25.5  # grey levels: a tenth of the range
_VIDEO_FPS = Fraction(8)  # of the copies people look at
_VIDEO_CRF = 20

Frames = UInt8[Tensor, "t c H W"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolRun:
    """One run of one protocol.

    Attributes:
        data: The data folder.
        source: What is measured.
        networks: What measures.
        out: Everything the run leaves.
        cache: Real-side features, shared by all runs on the same data.
        seed: Of draws, samples and intervals.
        bootstrap: How intervals are made.
        keep_videos: Whether copies for people are written.
        dataset_sha256: Of the data, as the plan found them. Empty until the plan is made.
        num_shards: Processes that share the plan.
        key: Hash of the run's identity: names what its files were made from. Empty until the
            plan is made.
    """

    data: Path
    source: VideoSource
    networks: Networks
    out: Path
    cache: Path
    seed: int
    bootstrap: BootstrapConfig
    keep_videos: bool = True
    dataset_sha256: str = ""
    num_shards: int = 1
    key: str = ""

    def keep(self, clip: PlannedClip, generated: Frames, real: Frames | None) -> None:
        """Write the copies people look at; numbers are taken before the codec."""
        if not self.keep_videos:
            return
        folder = self.out / "videos"
        folder.mkdir(parents=True, exist_ok=True)
        name = video_name(clip)
        _write(folder / f"{name}.mp4", generated)
        if real is not None:
            _write(folder / f"{name}.truth.mp4", real)


class RealSide:
    """Features of real clips and of their damaged copies; they do not hang on any model."""

    def __init__(self, cache: Path, extractor: VideoExtractor, *, identity: str) -> None:
        """Open the store of one extractor on one way of reading one set.

        Args:
            cache: Shared by all runs.
            extractor: The network.
            identity: Data hash, framing and window: all that decides the frames of a clip id.
        """
        text = f"{identity}\n{extractor.variant}\n{extractor.card.content_hash()}"
        self.identity = hashlib.sha256(text.encode()).hexdigest()
        self.store = TensorStore(cache / "real" / self.identity[:16])
        self._extractor = extractor

    def ensure(self, clip: PlannedClip, frames: Frames) -> None:
        """Extract a clip's features, and those of its damaged copies if it is a control clip."""
        if self._get(clip) is not None:
            return
        vectors = {"real": self._extractor.extract(frames.unsqueeze(0))[0]}
        if is_control(clip):
            damaged = damage([frames], noise_std=CONTROL_NOISE_STD, seed=clip.seed)
            for name, videos in damaged.items():
                vectors[name] = self._extractor.extract(videos[0].unsqueeze(0))[0]
        self.store.put(clip.clip_id, _real_key(clip), vectors)

    def vector(self, clip: PlannedClip) -> Float[Tensor, " d"]:
        """Return the features that `ensure` kept.

        Raises:
            MissingInputError: Somebody emptied the cache since.
        """
        return self.damaged(clip, "real")

    def damaged(self, clip: PlannedClip, control: str) -> Float[Tensor, " d"]:
        """Return the features of a control clip's damaged copy; see `vector`."""
        tensors = self._get(clip)
        if tensors is None:
            raise MissingInputError(
                f"real features of {clip.clip_id} are gone from the cache: measure again "
                "with another --out"
            )
        return tensors[control]

    def _get(self, clip: PlannedClip) -> Mapping[str, Tensor] | None:
        stored = self.store.get(clip.clip_id, _real_key(clip))
        return None if stored is None else stored.tensors


def is_control(clip: PlannedClip) -> bool:
    """Return whether a clip is damaged for the control rows."""
    return clip.facts.get("control") == "yes"


def mark_controls(clips: Sequence[PlannedClip]) -> tuple[PlannedClip, ...]:
    """Return the clips, the first few marked as control clips."""
    return tuple(
        clip.model_copy(update={"facts": clip.facts | {"control": "yes"}})
        if index < NUM_CONTROLS
        else clip
        for index, clip in enumerate(clips)
    )


def _real_key(clip: PlannedClip) -> str:
    window = f"{clip.path}:{clip.start_frame}+{clip.num_frames}"
    return f"{window}:{clip.seed}" if is_control(clip) else window


def video_name(clip: PlannedClip) -> str:
    """Return the stem of a clip's video files: as its benchmark names it, or its id."""
    return clip.facts.get("file", clip.clip_id)


def even_sided(frames: Frames) -> Frames:
    """Return frames without the last row or column where a side is odd; codecs want even sides."""
    height, width = frames.shape[-2:]
    return frames[..., : height - height % 2, : width - width % 2]


def _write(path: Path, frames: Frames) -> None:
    pictures = rearrange(even_sided(frames), "t c H W -> t H W c").contiguous().numpy()
    write_video(path, pictures, _VIDEO_FPS, crf=_VIDEO_CRF)
