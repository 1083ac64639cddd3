"""`svd doctor`: is this machine fit, and what to do if it is not."""

import importlib.metadata
import platform
import shutil
import socket
import sys
from typing import TYPE_CHECKING, Final, NamedTuple

import typer

if TYPE_CHECKING:
    from svd.runtime.workspace import Workspace

PACKAGES: Final = (
    "torch",
    "deepspeed",
    "prefect",
    "fastapi",
    "dvc",
    "gto",
    "wandb",
    "av",
    "webdataset",
)
PROBE_KEY: Final = "doctor/probe"
DISK_NEEDED_GB: Final = 5  # what the laptop recipe leaves behind, with room


class Finding(NamedTuple):
    """One line of the report."""

    what: str
    good: bool
    said: str


def add_commands(root: typer.Typer) -> None:
    """Hang the command on the root."""
    root.command(rich_help_panel="Services")(doctor)


def doctor() -> None:
    """Check versions, programs, disk, ports, GPU and the store; exit 1 if something is missing."""
    from rich.console import Console
    from rich.table import Table

    from svd.runtime.workspace import Workspace

    workspace = Workspace.find()
    findings = [_python(), *_packages(), *_programs(), _disk(workspace), _port(), _gpu()]
    findings.append(_store(workspace))
    table = Table("", "check", "finding")
    for finding in findings:
        table.add_row("ok" if finding.good else "BAD", finding.what, finding.said)
    Console().print(table)
    if not all(finding.good for finding in findings):
        raise typer.Exit(1)


def _python() -> Finding:
    good = sys.version_info >= (3, 11)
    return Finding("python", good, platform.python_version() + ("" if good else " (3.11 or newer)"))


def _packages() -> list[Finding]:
    return [_package(name) for name in PACKAGES]


def _package(name: str) -> Finding:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, good=False, said="not installed: run `make install`")
    if name == "fastapi" and tuple(int(part) for part in version.split(".")[:2]) >= (0, 151):
        said = f"{version} breaks Prefect 3.8: install 'fastapi<0.151'"
        return Finding(name, good=False, said=said)
    return Finding(name, good=True, said=version)


def _programs() -> list[Finding]:
    return [
        Finding(name, good=path is not None, said=path or f"not found: install {name}")
        for name in ("git", "make", "g++")
        for path in (shutil.which(name),)
    ]


def _disk(workspace: "Workspace") -> Finding:
    free_gb = shutil.disk_usage(workspace.root).free / 1e9
    said = f"{free_gb:.0f} GB free (needs {DISK_NEEDED_GB})"
    return Finding("disk", free_gb >= DISK_NEEDED_GB, said)


def _port() -> Finding:
    from svd.commands.services import PORT

    with socket.socket() as probe:
        taken = probe.connect_ex(("127.0.0.1", PORT)) == 0
    state = "in use; `svd up` takes another" if taken else "free"
    return Finding("port", good=True, said=f"{PORT} is {state}")


def _gpu() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding("gpu", good=True, said="none; the laptop recipe does not need one")
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return Finding("gpu", good=True, said=", ".join(names))


def _store(workspace: "Workspace") -> Finding:
    from svd.errors import SvdError
    from svd.runtime.storage import default_store_uri, open_store

    uri = default_store_uri(workspace)
    try:
        store = open_store(uri)
        store.put_bytes(b"svd doctor", PROBE_KEY)
        store.delete(PROBE_KEY)
    except SvdError as err:
        return Finding("store", good=False, said=str(err))
    return Finding("store", good=True, said=f"{uri} reads and writes")
