"""Everything here checks infra/; run it with `make infra`."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/infra" in str(item.path):
            item.add_marker(pytest.mark.infra)
