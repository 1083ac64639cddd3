"""The Terraform modules: valid, as planned, and made and destroyed for real against a stand-in."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = ROOT / "infra" / "terraform"
TERRAFORM = shutil.which("terraform")
MIRRORS = ("/opt", "/usr/local/share", "/usr/share", str(Path.home() / ".terraform.d"))
pytestmark = pytest.mark.skipif(TERRAFORM is None, reason="no terraform on the PATH")


def find_mirror() -> Path | None:
    """Return a folder that providers lie in, for machines without Terraform's registry."""
    for start in MIRRORS:
        for found in Path(start).glob("**/registry.terraform.io/hashicorp/aws"):
            return found.parents[2]
    return None


def terraform(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "TF_CLI"))}
    env |= {
        "CHECKPOINT_DISABLE": "1",
        "TF_IN_AUTOMATION": "1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    return subprocess.run(
        [str(TERRAFORM), *arguments, "-no-color"],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


def must(folder: Path, *arguments: str) -> str:
    done = terraform(folder, *arguments)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("terraform") / "terraform"
    shutil.copytree(MODULES, folder, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))
    mirror = find_mirror()
    done = terraform(
        folder,
        "init",
        "-backend=false",
        "-input=false",
        *([] if mirror is None else [f"-plugin-dir={mirror}"]),
    )
    if done.returncode:
        pytest.skip(f"terraform init cannot get its provider: {done.stderr[-300:]}")
    return folder


def test_files_are_formatted() -> None:
    assert terraform(MODULES, "fmt", "-check", "-recursive").stdout == ""


def test_modules_are_valid(ready: Path) -> None:
    assert "Success" in must(ready, "validate")


def test_plans_hold_what_they_must(ready: Path) -> None:
    assert "0 failed" in must(ready, "test")


@pytest.fixture
def aws() -> Iterator[str]:
    """A moto server on loopback, stopped at the end of the test."""
    pytest.importorskip("moto")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{url}/moto-api/")
        yield url
    finally:
        server.terminate()
        server.wait()


def wait_for(url: str, *, within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while True:
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)
        else:
            return


@pytest.mark.timeout(900)
def test_storage_and_roles_are_made_and_destroyed(ready: Path, aws: str) -> None:
    given = [f"-var=endpoint={aws}", "-var=cluster=none"]
    must(ready, "apply", "-auto-approve", "-input=false", *given)
    outputs = json.loads(must(ready, "output", "-json"))
    assert outputs["store_uri"]["value"] == "s3://svd-test/store"
    assert set(outputs["role_arns"]["value"]) == {"curator", "trainer", "reader"}
    check_policies(json.loads(must(ready, "show", "-json")))
    must(ready, "destroy", "-auto-approve", "-input=false", *given)
    assert json.loads(must(ready, "show", "-json")).get("values") is None


def check_policies(state: dict[str, object]) -> None:
    """Nothing is granted outside the bucket's prefixes and its key; raw videos are read-only."""
    policies = {
        resource["index"]: json.loads(resource["values"]["policy"])
        for resource in resources(state["values"]["root_module"])  # type: ignore[index]
        if resource["type"] == "aws_iam_policy"
    }
    assert set(policies) == {"curator", "trainer", "reader"}
    for role, policy in policies.items():
        for statement in policy["Statement"]:
            assert statement["Effect"] == "Allow"
            actions, places = as_list(statement["Action"]), as_list(statement["Resource"])
            assert not any("*" in action for action in actions)
            for place in places:
                assert place.startswith(("arn:aws:s3:::svd-test", "arn:aws:kms:"))
                assert place != "arn:aws:s3:::svd-test/*"
            if actions == ["s3:ListBucket"]:
                assert statement["Condition"]["StringLike"]["s3:prefix"]
            if any(a in {"s3:PutObject", "s3:DeleteObject"} for a in actions):
                assert role != "reader"
                assert places == ["arn:aws:s3:::svd-test/store/*"]


def resources(module: dict[str, object]) -> Iterator[dict[str, object]]:
    yield from module.get("resources", [])  # type: ignore[misc]
    for child in module.get("child_modules", []):  # type: ignore[attr-defined]
        yield from resources(child)


def as_list(value: object) -> list[str]:
    return [value] if isinstance(value, str) else list(value)  # type: ignore[call-overload]
