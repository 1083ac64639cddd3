"""compute.data_store: ranks read shards from a copy of data/latents, here on a real S3 server."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from svd.commands.store import app as store_commands
from svd.data.stream.copies import check_copy, copy_dataset
from svd.data.stream.shards import load_manifest
from svd.errors import ConfigError, IntegrityError, MissingInputError
from svd.runtime.storage import open_store
from svd.runtime.storage_s3 import S3Store
from svd.runtime.workspace import Workspace
from svd.training.stage.plan import plan_stage
from svd.types.shard import ShardManifest
from tests.unit.training.solo import only_rank, train
from tests.unit.training.world import DENOISER, Recipe, make_world, stage_config

pytestmark = [pytest.mark.timeout(600)]


@pytest.fixture
def uri(s3_environment: dict[str, str]) -> Iterator[str]:
    store = open_store(f"s3://latents-{uuid.uuid4().hex[:12]}")
    assert isinstance(store, S3Store)
    store.create_bucket()
    yield f"{store.uri}/of/a/project"
    store.delete_tree("")


def recipe(data_store: str | None) -> Recipe:
    config = stage_config(phase={"num_steps": 4}, compute={"data_store": data_store})
    return Recipe(seed=1, denoiser=DENOISER, finetune_i2v=config, lora=config)


def manifest_of(world: Workspace) -> ShardManifest:
    return load_manifest(open_store(str(world.latents)))


def test_ranks_that_read_a_copy_in_s3_learn_the_same(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(tmp_path)
    monkeypatch.chdir(tmp_path)
    copied = CliRunner().invoke(store_commands, ["copy-latents", uri])
    assert copied.exit_code == 0, copied.output
    assert "4 files were copied" in copied.output
    assert f"data_store: {uri}" in copied.output
    local, remote = (
        plan_stage("finetune-i2v", recipe(place), world, name=name).job  # type: ignore[arg-type]
        for name, place in (("local", None), ("remote", uri))
    )
    assert (local.data, remote.data) == (str(world.latents), uri)
    with only_rank():
        expected = train(local)
        for path in (world.latents / "shards").iterdir():
            path.unlink()  # nothing but the manifest is read of it
        found = train(remote)
    weights = (run.phase_weights(0, "only").read_bytes() for run in (expected, found))
    assert len(set(weights)) == 1
    assert found.history.read_bytes() == expected.history.read_bytes()


def test_what_is_there_is_not_copied_again(uri: str, tmp_path: Path) -> None:
    world, store = make_world(tmp_path), open_store(uri)
    assert copy_dataset(world.latents, store)[1] == 4
    shard = manifest_of(world).shards[0]
    store.delete(shard.uri)
    assert copy_dataset(world.latents, store)[1] == 1
    assert copy_dataset(world.latents, store)[1] == 0
    store.delete(shard.uri)
    path = world.latents / shard.uri
    path.write_bytes(path.read_bytes()[:-1] + b"x")  # of the same size
    for _ in range(2):  # what was refused once is not there the next time
        with pytest.raises(IntegrityError, match=str(path)):
            copy_dataset(world.latents, store)
    path.unlink()
    with pytest.raises(MissingInputError, match="run `svd encode` or `dvc checkout`"):
        copy_dataset(world.latents, store)


def test_another_data_set_and_none_are_refused(uri: str, tmp_path: Path) -> None:
    world = make_world(tmp_path)
    with pytest.raises(MissingInputError, match=f"no data set: `svd store copy-latents {uri}"):
        plan_stage("finetune-i2v", recipe(uri), world, name="run")  # type: ignore[arg-type]
    copy_dataset(world.latents, open_store(uri))
    changed = manifest_of(world).model_copy(update={"latent_scale": 2.0})
    with pytest.raises(IntegrityError, match=r"holds data set .* and data/latents is"):
        check_copy(changed, uri)


def test_a_stage_with_data_of_its_own_refuses_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(tmp_path)
    monkeypatch.setattr(
        "svd.training.stage.plan._find_data", lambda *_: (manifest_of(world), world.latents)
    )
    with pytest.raises(ConfigError, match=r"lora\.compute\.data_store=.* leave the key out"):
        plan_stage("lora@zoom", recipe(str(tmp_path)), world, name="run")  # type: ignore[arg-type]
