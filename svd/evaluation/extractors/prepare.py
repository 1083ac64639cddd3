"""How a video is made fit for a network: which frames, what size; every choice has a name."""

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from svd.errors import ConfigError
from svd.evaluation.geometry import cover, stretch


@dataclass(frozen=True, slots=True)
class VideoInput:
    """What a video network is fed.

    Attributes:
        num_frames: Frames taken from the start of the video.
        source_frames: Frames the videos have. Fewer than num_frames are spread by repeating:
            frame i is source frame floor(i * source_frames / num_frames). No picture is invented.
        size: Side of the square picture, in pixels.
        resize: Stretch to the square, or shorter side to `size` and a central crop.
        antialias: Whether shrinking filters first.
    """

    num_frames: int
    source_frames: int
    size: int = 224
    resize: Literal["stretch", "crop"] = "stretch"
    antialias: bool = False

    def describe(self) -> str:
        """Return the part of a variant id that tells all of this."""
        frames = f"{self.num_frames}f"
        if self.source_frames < self.num_frames:
            frames += f"-repeated-from-{self.source_frames}f"
        filtered = "aa" if self.antialias else "noaa"
        return f"{frames}/s1/{self.resize}{self.size}-{filtered}"


def frame_indices(video_input: VideoInput) -> list[int]:
    """Return which source frame stands at each position of the network's input."""
    if video_input.source_frames >= video_input.num_frames:
        return list(range(video_input.num_frames))
    return [
        index * video_input.source_frames // video_input.num_frames
        for index in range(video_input.num_frames)
    ]


def prepare_video(
    frames: UInt8[Tensor, "b t c H W"], video_input: VideoInput
) -> Float[Tensor, "b c t S S"]:
    """Return pixels in -1..1 of the stated frames at the stated size.

    Raises:
        ConfigError: The videos have another number of frames than the input was stated for.
    """
    if frames.shape[1] != video_input.source_frames:
        raise ConfigError(
            f"videos of {frames.shape[1]} frames, but the input is stated for "
            f"source_frames={video_input.source_frames}"
        )
    batch = frames.shape[0]
    # Channels last from the small pictures on: the network wants them so, and the large ones are
    # then never copied.
    pictures = rearrange(frames, "b t c H W -> (b t) c H W").contiguous(
        memory_format=torch.channels_last
    )
    sized = _resized(pictures.float(), video_input).div_(127.5).sub_(1)
    pixels = rearrange(sized, "(b t) c H W -> b c t H W", b=batch)
    indices = frame_indices(video_input)
    if indices == list(range(len(indices))):
        return pixels[:, :, : len(indices)]
    return pixels[:, :, torch.tensor(indices)]


def _resized(pictures: Tensor, video_input: VideoInput) -> Tensor:
    resize = stretch if video_input.resize == "stretch" else cover
    side = video_input.size
    return resize(pictures, side, side, antialias=video_input.antialias)
