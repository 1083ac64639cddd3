"""What a worker does with one unit: one thread, and what is wrong with the unit becomes a value."""

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import cv2

from svd.errors import MediaError, SvdError, is_disk_full

P = TypeVar("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Failed:
    """Why the unit gave no result."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Returned(Generic[R]):
    """The unit's result."""

    value: R


@dataclass(frozen=True, slots=True)
class Ended(Generic[R]):
    """How a unit ended in its worker, and what it took."""

    end: Returned[R] | Failed
    cpu_s: float
    wall_s: float


@dataclass(frozen=True)
class UnitCall(Generic[P, R]):
    """Calls a unit's function; errors that concern no single unit are raised."""

    function: Callable[[P], R]
    memory_mib: int | None

    @property
    def __wrapped__(self) -> Callable[[P], R]:
        """The function inside, whose module the pool loads once for all its processes."""
        return self.function

    def __call__(self, payload: P) -> Ended[R]:
        """Do one unit.

        Raises:
            SvdError: No unit can be done, such as for weights that are missing.
            OSError: The disk is full.
        """
        cpu, wall = time.process_time(), time.monotonic()
        end = self._end_of(payload)
        return Ended(end, time.process_time() - cpu, time.monotonic() - wall)

    def _end_of(self, payload: P) -> Returned[R] | Failed:
        cv2.setNumThreads(1)  # more would only fight the other workers for the same cores
        try:
            return Returned(self.function(payload))
        except MediaError as err:
            return Failed(err.reason, err.detail)
        except SvdError:
            raise
        except MemoryError:
            return Failed("out-of-memory", f"more than {self.memory_mib} MiB needed")
        except Exception as err:  # of 100,000 files one finds the bug; the rest go on
            if is_disk_full(err):
                raise
            if isinstance(err, cv2.error) and err.code == cv2.Error.StsNoMem:
                return Failed("out-of-memory", f"more than {self.memory_mib} MiB needed")
            return Failed("internal-error", _describe(err))


def _describe(err: Exception) -> str:
    """Return an error in one line, with the place where it was raised."""
    frames = traceback.extract_tb(err.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    return f"{type(err).__name__} at {place}: {' '.join(str(err).split())}"
