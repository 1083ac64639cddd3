"""The console that tables are printed on."""

import sys

from rich.console import Console

_PIPED_WIDTH = 200  # columns where nobody looks: wide enough that no hash is broken in two


def open_console() -> Console:
    """Return a console as wide as the terminal, or wide enough for programs that read on."""
    return Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH)
