"""Which tests share a worker of xdist: those of a file, and all that share a Prefect server."""

from pathlib import Path

import pytest

FLOWS = Path(__file__).parent / "flows"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Name the group of every test; `--dist loadgroup` gives a group to one worker."""
    for item in items:
        shares_server = FLOWS in item.path.parents
        name = "flows" if shares_server else str(item.path)
        item.add_marker(pytest.mark.xdist_group(name))
