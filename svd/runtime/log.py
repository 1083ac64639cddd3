"""Logging: one line of text per event on stderr, facts as key=value."""

import logging
import sys

_PLAIN = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"message", "asctime"}


class FactFormatter(logging.Formatter):
    """Append the facts given as `extra` to the fixed message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for one record."""
        line = super().format(record)
        facts = {key: value for key, value in record.__dict__.items() if key not in _PLAIN}
        return line + "".join(f" {key}={value}" for key, value in facts.items())


def set_up_logging(*, verbose: bool = False) -> None:
    """Send the logs of svd to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FactFormatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    root = logging.getLogger("svd")
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    root.propagate = False
