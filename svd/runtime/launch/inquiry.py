"""What a scheduler says of a job: asked now and then, and allowed not to answer for a while."""

import logging
import time
from collections.abc import Callable
from typing import Final

from svd.errors import LaunchError
from svd.runtime.launch.launcher import JobState

logger = logging.getLogger(__name__)

ASK_EVERY_S: Final = 5.0  # a cluster has one controller for everybody
MAX_SILENCE_S: Final = 900.0  # it may be restarted, or the way to it fail; jobs go on meanwhile


class Inquiry:
    """Asks for the state of one job."""

    def __init__(self, ask: Callable[[str], JobState], *, every_s: float) -> None:
        """Make one that has not asked yet.

        Args:
            ask: Returns the state of a job, or raises LaunchError.
            every_s: Seconds between two questions.
        """
        self._ask = ask
        self._every_s = every_s
        self._state = JobState.RUNNING
        self._asked_at = -every_s
        self._heard_at = time.monotonic()

    def state(self, job_id: str) -> JobState:
        """Return the state as it was heard last.

        Raises:
            LaunchError: There was no answer for a quarter of an hour.
        """
        now = time.monotonic()
        if now - self._asked_at < self._every_s:
            return self._state
        self._asked_at = now
        try:
            self._state = self._ask(job_id)
        except LaunchError as err:
            if now - self._heard_at > MAX_SILENCE_S:
                raise
            logger.warning("the cluster does not answer", extra={"job": job_id, "error": str(err)})
        else:
            self._heard_at = now
        return self._state
