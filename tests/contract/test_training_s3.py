"""Training on data in S3 with checkpoints in S3, over a network that fails now and then."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from svd.data.stream.copies import copy_dataset
from svd.runtime.storage import open_store
from svd.runtime.storage_s3 import S3Store
from svd.training.checkpoints.checkpoint import find_checkpoints, open_home
from tests.contract.faulty_proxy import FaultyProxy
from tests.unit.training.solo import make_job, only_rank, train
from tests.unit.training.world import make_world

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(600)]
NUM_STEPS = 20


@pytest.fixture(scope="module", autouse=True)
def rank() -> Iterator[None]:
    with only_rank():
        yield


def test_one_failing_request_in_twenty_changes_no_weight(
    s3_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world = make_world(tmp_path)
    phase = {"num_steps": NUM_STEPS}
    local = train(make_job(world, name="local", phase=phase))

    with FaultyProxy(s3_environment["AWS_ENDPOINT_URL"], probability=0.05, seed=3) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        store = open_store(f"s3://training-{uuid.uuid4().hex[:12]}")
        assert isinstance(store, S3Store)
        store.create_bucket()
        copy_dataset(world.latents, open_store(f"{store.uri}/latents"))
        job = make_job(
            world,
            name="remote",
            data=f"{store.uri}/latents",
            phase=phase,
            checkpoint={"every_steps": 2, "store": f"{store.uri}/live"},
        )
        train(job, stop_at=NUM_STEPS // 2)
        saved = [finding.record for finding in find_checkpoints(open_home(job, 0))]
        assert [record.state.step for record in saved if record] == [8, 10]
        remote = train(job)  # goes on from S3
        assert list(find_checkpoints(open_home(job, 0))) == []

    assert sum(proxy.faults.values()) >= 5
    for ours, theirs in (
        (remote.phase_weights(0, "only"), local.phase_weights(0, "only")),
        (remote.history, local.history),
    ):
        assert ours.read_bytes() == theirs.read_bytes()
