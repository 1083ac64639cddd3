"""Freed memory stays with the process, for the tensors of the next step."""

import ctypes
import logging
import sys
from typing import Final

logger = logging.getLogger(__name__)

# Parameters of mallopt(3), from glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_GROW_BYTES = 64 << 20  # of the heap, at once
_SETTINGS = (
    (_MMAP_MAX, 0),  # large tensors too come from the heap
    (_TRIM_THRESHOLD, -1),  # of which nothing is given back
    (_TOP_PAD, _GROW_BYTES),
    (_ARENA_MAX, 1),  # backward's thread finds what forward's has freed
)


# glibc sets aside small freed pieces, such as what the alignment of a tensor cuts off, and does not
# join them to the free memory around them: tensors then find holes that are a few bytes too small.
_TUNABLE: Final = "glibc.malloc.tcache_count=0"


def heap_environment(own: str | None = None) -> dict[str, str]:
    """Return the variables by which a process on a CPU starts with a heap without such pieces.

    They are read as the process starts. The peak of a training step went from 2.9 to 2.4 GB, at
    less than 1 % of its time with one thread (benchmarks/LOG.md, 2026-11-30).

    Args:
        own: GLIBC_TUNABLES that the user has set; what they say of the same setting is kept, since
            glibc takes the last.
    """
    return {"GLIBC_TUNABLES": f"{_TUNABLE}:{own}" if own else _TUNABLE}


def keep_freed_memory() -> bool:
    """Ask glibc to keep what is freed; return whether it does.

    A training step on a CPU allocates and frees gigabytes. By default large tensors are mapped anew
    and the kernel hands over their pages one fault at a time: 5 % of a step of a network of 69
    million parameters (benchmarks/unet.py), 11 % beside other work. With `heap_environment`, peak
    memory stays about as it is.
    Another C library than glibc is left alone.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    kept = all(library.mallopt(key, value) == 1 for key, value in _SETTINGS)
    if not kept:
        logger.warning("glibc refused to keep freed memory: CPU steps are slower")
    return kept
