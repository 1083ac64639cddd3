"""What a sampled video can be written as."""

from enum import StrEnum


class OutputFormat(StrEnum):
    """One kind of file, or of folder."""

    MP4 = "mp4"  # H.264
    GIF = "gif"
    PNG = "png"  # a folder of numbered frames
    SHEET = "sheet"  # one picture with a row per video of the run
