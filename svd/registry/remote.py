"""The DVC remote of a checkout, as a version's commit names it for others."""

import configparser
import io
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

REMOTE: Final = "store"  # `svd store init` makes it
_SECTION: Final = f"'remote \"{REMOTE}\"'"
_SHARED: Final = ("url", "endpointurl", "region")  # the rest may be secret or of one machine only


def shared_config(root: Path) -> str | None:
    """Return a .dvc/config that lets `dvc artifacts get` find a version's bytes.

    The remote is usually set in .dvc/config.local, which git does not see. Credentials stay there.
    None if the checkout has no such remote, or its committed config names it already.
    """
    committed, own = _read(root / ".dvc" / "config"), _read(root / ".dvc" / "config.local")
    if committed.has_section(_SECTION) or not own.has_section(_SECTION):
        return None
    if not committed.has_section("core"):
        committed.add_section("core")
    committed["core"]["remote"] = REMOTE
    committed.add_section(_SECTION)
    for key in _SHARED:
        if own.has_option(_SECTION, key):
            committed[_SECTION][key] = own[_SECTION][key]
    if not urlsplit(committed[_SECTION]["url"]).scheme:
        # A path in a config file is relative to the file; a clone lies somewhere else.
        committed[_SECTION]["url"] = str((root / ".dvc" / own[_SECTION]["url"]).resolve())
    text = io.StringIO()
    committed.write(text)
    return text.getvalue()


def has_remote(root: Path) -> bool:
    """Whether `svd store init` has pointed DVC at the store, for everyone or on this machine."""
    files = (root / ".dvc" / "config", root / ".dvc" / "config.local")
    return any(_read(path).has_section(_SECTION) for path in files)


def _read(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(path, encoding="utf-8")
    return parser
