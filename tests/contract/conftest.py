"""Real servers for the contract tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from svd.runtime.seaweed import S3Server, start_seaweed, stop_seaweed


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A SeaweedFS of this test run on a free port, stopped at its end."""
    folder = tmp_path_factory.mktemp("seaweed")
    server = start_seaweed(folder / "services", folder / "s3", port=0)
    yield server
    stop_seaweed(folder / "services", grace_s=0.5)


@pytest.fixture
def s3_environment(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Point every AWS client of this test at the server."""
    point_at(s3_server, monkeypatch)
    return s3_server.environment


def point_at(server: S3Server, patch: pytest.MonkeyPatch) -> None:
    """Point every AWS client of this process at a server, whatever its environment said."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            patch.delenv(name)
    for name, value in server.environment.items():
        patch.setenv(name, value)


@pytest.fixture
def folder_uri(tmp_path: Path) -> str:
    """The URI of an empty folder store."""
    return str(tmp_path / "store")
