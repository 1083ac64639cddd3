"""The networks a run measures with, loaded when first asked for."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from svd.errors import ConfigError
from svd.evaluation.extractors.base import PictureDistance, PictureEmbedder, VideoExtractor
from svd.evaluation.extractors.i3d import load_i3d
from svd.evaluation.extractors.inception import load_inception
from svd.evaluation.extractors.lpips import load_lpips
from svd.evaluation.extractors.middle_frame import MiddleFrame
from svd.evaluation.extractors.prepare import VideoInput
from svd.evaluation.extractors.slots import load_picture_slot, load_video_slot
from svd.evaluation.extractors.tiny import (
    TinyPictureDistance,
    TinyPictureEmbedder,
    TinyVideoExtractor,
)
from svd.models.critics.lpips import LPIPS_WEIGHTS

T = TypeVar("T")
_OPT_IN: Final = {"frame": "--frame-network", "classifier": "--classifier"}


class Networks:
    """What is chosen for each kind of network: a name that is built in, or a card's path."""

    def __init__(
        self,
        cache: Path,
        *,
        video: str = "i3d",
        frame: str | None = None,
        distance: str = "alex",
        embedder: str = "tiny",
        classifier: str | None = None,
    ) -> None:
        """Choose.

        Args:
            cache: Holds weights.
            video: "i3d", "tiny", or the path of a card (see `svd.evaluation.extractors.slots`).
            frame: "inception" (FID), "tiny", the path of a picture network's card, or None: no
                distance of frames. Opt-in, by the licence of Inception's weights.
            distance: "alex", "vgg" (LPIPS) or "tiny".
            embedder: "tiny", "inception" or the path of a card.
            classifier: Path of the card of a network that names what a video shows, for the
                inception score; None leaves that out, for no such network can be had by package.
        """
        self.cache = cache
        self._video, self._distance, self._embedder = video, distance, embedder
        self._frame, self._classifier = frame, classifier
        self._loaded: dict[tuple[object, ...], object] = {}  # the kind first

    def video(self, video_input: VideoInput) -> VideoExtractor:
        """Return the video network; a user's own or tiny one decides about its input itself."""
        return self._once(("video", video_input), lambda: self._load_video(video_input))

    def frame(self) -> VideoExtractor | None:
        """Return the network that sees one frame of each video; None if it was not asked for."""
        name = self._frame
        if name is None:
            return None
        return self._once(("frame",), lambda: MiddleFrame(self._load_embedder(name)))

    def distance(self) -> PictureDistance:
        """Return the distance of pictures."""
        return self._once(("distance",), self._load_distance)

    def embedder(self) -> PictureEmbedder:
        """Return the picture network whose cosines are likeness."""
        return self._once(("embedder",), lambda: self._load_embedder(self._embedder))

    def classifier(self, *, source_frames: int) -> VideoExtractor | None:
        """Return the network whose vectors are logits of classes; None if none was brought."""
        card = self._classifier
        if card is None:
            return None
        return self._once(
            ("classifier", source_frames),
            lambda: load_video_slot(Path(card), source_frames=source_frames),
        )

    def check_all_asked(self, protocol: str) -> None:
        """Raise if a network that the user brought in is not one this protocol measures with.

        Raises:
            ConfigError: `frame` or `classifier` was given and has not been asked for.
        """
        brought = {"frame": self._frame, "classifier": self._classifier}
        asked = {key[0] for key in self._loaded}
        unused = [kind for kind, name in brought.items() if name is not None and kind not in asked]
        if unused:
            options = " and ".join(_OPT_IN[kind] for kind in unused)
            raise ConfigError(f"{protocol} does not measure with {options}; leave that out")

    def _once(self, key: tuple[object, ...], load: Callable[[], T]) -> T:
        if key not in self._loaded:
            self._loaded[key] = load()
        return self._loaded[key]  # type: ignore[return-value]  # one key, one kind

    def _load_video(self, video_input: VideoInput) -> VideoExtractor:
        if self._video == "i3d":
            return load_i3d(self.cache, video_input)
        if self._video == "tiny":
            return TinyVideoExtractor(
                num_frames=video_input.num_frames, source_frames=video_input.source_frames
            )
        return load_video_slot(Path(self._video), source_frames=video_input.source_frames)

    def _load_distance(self) -> PictureDistance:
        if self._distance == "tiny":
            return TinyPictureDistance()
        if self._distance in LPIPS_WEIGHTS:
            return load_lpips(self.cache, self._distance)
        raise ConfigError(f"picture distance {self._distance!r}: known are alex, vgg and tiny")

    def _load_embedder(self, name: str) -> PictureEmbedder:
        if name == "inception":
            return load_inception(self.cache)
        if name == "tiny":
            return TinyPictureEmbedder()
        return load_picture_slot(Path(name))
