"""The manifests: rendered by kustomize, checked against Kubernetes' own schemas and our rules."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "infra" / "kubernetes"
KUBECTL = shutil.which("kubectl")
pytestmark = pytest.mark.skipif(KUBECTL is None, reason="no kubectl on the PATH")
KUBERNETES = "1.32"  # the version that infra/terraform/modules/eks asks for


@pytest.fixture(scope="module", params=["base", "overlays/aws"])
def manifests(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    done = subprocess.run(
        [str(KUBECTL), "kustomize", str(FOLDER / request.param)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def of_kind(manifests: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def test_every_manifest_has_its_kinds_schema(manifests: list[dict[str, Any]]) -> None:
    checker = pytest.importorskip("kubernetes_validate")
    for manifest in manifests:
        checker.validate(manifest, KUBERNETES, strict=True)


def test_the_schemas_catch_a_typo(manifests: list[dict[str, Any]]) -> None:
    checker = pytest.importorskip("kubernetes_validate")
    wrong = yaml.safe_load(yaml.safe_dump(of_kind(manifests, "Deployment")[0]))
    wrong["spec"]["replicaz"] = wrong["spec"].pop("replicas")
    with pytest.raises(checker.ValidationError):
        checker.validate(wrong, KUBERNETES, strict=True)


def test_pods_are_not_root_and_cannot_become_it(manifests: list[dict[str, Any]]) -> None:
    deployments = of_kind(manifests, "Deployment")
    assert deployments
    for deployment in deployments:
        pod = deployment["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"]


def test_only_the_worker_may_ask_the_cluster_for_anything(manifests: list[dict[str, Any]]) -> None:
    accounts = {a["metadata"]["name"]: a for a in of_kind(manifests, "ServiceAccount")}
    silent = {
        name for name, a in accounts.items() if a.get("automountServiceAccountToken") is False
    }
    assert set(accounts) - silent == {"svd-worker"}
    assert not of_kind(manifests, "ClusterRole")
    for role in of_kind(manifests, "Role"):
        for rule in role["rules"]:
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]


def test_everything_lies_in_the_namespace(manifests: list[dict[str, Any]]) -> None:
    for manifest in manifests:
        if manifest["kind"] != "Namespace":
            assert manifest["metadata"]["namespace"] == "svd"
