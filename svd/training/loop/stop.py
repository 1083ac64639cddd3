"""Asking a rank to save and end."""

import signal
from types import FrameType
from typing import Protocol, runtime_checkable


@runtime_checkable
class StopRequest(Protocol):
    """Whether this rank was asked to save and end."""

    @property
    def asked(self) -> bool:
        """Looked at once per step."""


class SignalledStop:
    """SIGTERM asks, as schedulers and spot instances do."""

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGTERM, self._note)

    def _note(self, _signum: int, _frame: FrameType | None) -> None:
        self.asked = True
