import hashlib
import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from clip_workspace import ENCODE, make_workspace, read_params

from svd.config.data import PictureSize, StreamConfig
from svd.config.model import AutoencoderConfig
from svd.data import encode
from svd.data.encode import load_annotated_clips, plan_shards
from svd.data.frames import read_frames
from svd.data.latents import load_autoencoder
from svd.data.stream.shards import load_manifest, read_index
from svd.data.stream.stream import OrderedBatches, stream_batches
from svd.errors import ConfigError, IntegrityError, MissingInputError
from svd.models.checkpoints.weights import save_weights
from svd.models.networks.autoencoder import Autoencoder
from svd.runtime.fingerprint import file_sha256
from svd.runtime.storage import open_store
from svd.runtime.tracking import NullTracker
from svd.runtime.workspace import Workspace
from svd.types.annotation import Annotation, Verdict
from svd.types.artifact import ModelRecord, StageReport
from svd.types.base import read_records, write_records
from svd.types.shard import ShardManifest, StreamPosition
from svd.types.video import Clip


def add_autoencoder(workspace: Workspace) -> None:
    """What stage autoencoder leaves, untrained."""
    config = AutoencoderConfig(
        base_channels=4,
        channel_mult=(1, 2, 2, 2),
        num_res_blocks=1,
        norm_groups=2,
        latent_scale=0.7,
    )
    torch.manual_seed(0)
    folder = workspace.model("autoencoder")
    save_weights(Autoencoder(config), folder / "weights.safetensors")
    record = ModelRecord(
        stage="autoencoder",
        kind="autoencoder",
        architecture=config.model_dump(mode="json"),
        weights_sha256=file_sha256(folder / "weights.safetensors"),
        num_parameters=1,
        step=0,
        examples_seen=0,
        params_fingerprint="",
        dataset_fingerprint="",
        init_sha256=None,
        run_fingerprint="",
    )
    (folder / "model.json").write_text(record.canonical_json())


def run(workspace: Workspace) -> StageReport:
    return encode.run(read_params(workspace), workspace, tracker=NullTracker())  # type: ignore[arg-type]


def manifest_of(workspace: Workspace) -> ShardManifest:
    return load_manifest(open_store(str(workspace.latents)))


def digest_tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Six clips, encoded once; tests that change it copy it first."""
    workspace = make_workspace(tmp_path_factory.mktemp("encoded"))
    add_autoencoder(workspace)
    run(workspace)
    return workspace


@pytest.fixture
def workspace(encoded: Workspace, tmp_path: Path) -> Workspace:
    shutil.copytree(encoded.root, tmp_path / "copy")
    return Workspace(tmp_path / "copy")


def test_every_kept_clip_is_in_its_split_once(encoded: Workspace) -> None:
    source = open_store(str(encoded.latents))
    found = {"train": [], "heldout": []}
    for shard in manifest_of(encoded).shards:
        found[shard.split] += [entry.key for entry in read_index(source, shard).examples]
    assert sorted(found["train"]) == [f"clip{i:03d}" for i in range(5)]
    assert found["heldout"] == ["clip005"]


def test_what_is_stored_is_what_the_networks_say_of_the_frames(encoded: Workspace) -> None:
    config = StreamConfig(height=16, width=32, num_frames=4, batch_size=8)
    source, manifest = open_store(str(encoded.latents)), manifest_of(encoded)
    (batch,) = OrderedBatches(manifest, config, source=source)
    clip = next(c for c in read_records(encoded.clips / "index.jsonl", Clip) if c.num_frames == 48)
    frames = read_frames(
        encoded.clips / clip.uri,
        clip,
        fps=manifest.fps,
        sizes=[PictureSize(height=16, width=32)],
        max_frames=4,
    ).by_size[0]
    assert np.array_equal(batch.cond_frame[0].numpy(), frames[0])
    autoencoder, _ = load_autoencoder(encoded.model("autoencoder"))
    with torch.no_grad():
        moments = autoencoder.encode(torch.from_numpy(frames).float() / 127.5 - 1)
    torch.testing.assert_close(batch.mean[0], moments.mean, atol=2e-3, rtol=2e-3)  # fp16
    torch.testing.assert_close(batch.logvar[0], moments.logvar, atol=2e-3, rtol=2e-3)
    assert batch.image_embeds.shape == (1, 1, 8)
    assert batch.fps.tolist() == [8.0]


def test_manifest_says_how_the_numbers_were_made(encoded: Workspace) -> None:
    manifest = manifest_of(encoded)
    assert manifest.latent_scale == 0.7
    assert (manifest.latent_channels, manifest.latent_downscale, manifest.embed_dim) == (4, 8, 8)
    assert manifest.motion_table.scorer == "motion.px of flow 3"
    assert manifest.motion_table.num_clips == 5
    weights = file_sha256(encoded.model("autoencoder") / "weights.safetensors")
    assert {one.role: one.sha256 for one in manifest.encoders}["autoencoder"] == weights


def test_motion_buckets_come_from_training_clips_alone(encoded: Workspace) -> None:
    config = StreamConfig(height=16, width=32, num_frames=1, batch_size=8)
    source, manifest = open_store(str(encoded.latents)), manifest_of(encoded)
    (train,) = OrderedBatches(manifest, config, source=source, split="train")
    buckets = dict(zip(train.clip_ids, train.motion_bucket_id.tolist(), strict=True))
    assert [buckets[f"clip{i:03d}"] for i in range(5)] == [0, 64, 128, 192, 255]
    (heldout,) = OrderedBatches(manifest, config, source=source, split="heldout")
    assert heldout.motion_bucket_id.tolist() == [255]


def test_long_clips_are_cut_at_max_frames(encoded: Workspace) -> None:
    lengths = {n.num_frames for shard in manifest_of(encoded).shards for n in shard.lengths}
    assert max(lengths) == ENCODE["max_frames"]
    assert min(lengths) == 4  # half a second at 8 fps


def test_state_of_a_finished_run_is_gone_and_shards_are_whole(encoded: Workspace) -> None:
    assert list(encoded.runs.iterdir()) == []
    for shard in manifest_of(encoded).shards:
        assert file_sha256(encoded.latents / shard.uri) == shard.sha256
        assert file_sha256(encoded.latents / shard.index_uri) == shard.index_sha256


@pytest.mark.parametrize("num_workers", [1, 3])
def test_same_bytes_again_with_any_number_of_workers(
    workspace: Workspace, num_workers: int
) -> None:
    before = digest_tree(workspace.latents)
    tree = yaml.safe_load(workspace.params_file.read_text())
    tree["encode"]["num_workers"] = num_workers
    workspace.params_file.write_text(yaml.safe_dump(tree))
    run(workspace)
    assert digest_tree(workspace.latents) == before


class Killed(Exception):
    """Stands for the end of the process."""


def test_killed_run_resumes_after_the_last_whole_shard(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digest_tree(workspace.latents)
    real, calls = encode.save_shard, []

    def save_then_die(*args: object, **kwargs: object) -> object:
        calls.append(kwargs)
        if len(calls) == 2:
            raise Killed
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(encode, "save_shard", save_then_die)
    with pytest.raises(Killed):
        run(workspace)
    assert digest_tree(workspace.latents) == before  # the old output is whole meanwhile
    done_before = len(calls) - 1
    calls.clear()
    calls += [{}, {}]
    run(workspace)
    assert len(calls) - 2 == len(manifest_of(workspace).shards) - done_before
    assert digest_tree(workspace.latents) == before


def test_clip_that_cannot_be_encoded_is_dropped_counted_and_named(workspace: Workspace) -> None:
    path = workspace.annotations / "annotations.jsonl"
    annotations = [
        one
        if one.clip_id != "clip002"
        else one.model_copy(update={"scores": {}, "missing": {"motion.px": "one frame only"}})
        for one in read_records(path, Annotation)
    ]
    write_records(path, annotations)
    report = run(workspace)
    (dropped,) = manifest_of(workspace).dropped
    assert (dropped.clip_id, dropped.reason) == ("clip002", "no-motion-score")
    assert report.summary["clips dropped"] == 1
    assert "one frame only" in report.warnings[0]
    assert report.summary["train examples"] == 4


def test_two_sizes_give_two_sets_of_shards(workspace: Workspace) -> None:
    tree = yaml.safe_load(workspace.params_file.read_text())
    tree["encode"]["sizes"].append({"height": 32, "width": 32})
    workspace.params_file.write_text(yaml.safe_dump(tree))
    before = manifest_of(workspace)
    run(workspace)
    manifest = manifest_of(workspace)
    assert manifest.sizes == ((16, 32), (32, 32))
    assert manifest.select("train", height=16, width=32) == before.select(
        "train", height=16, width=32
    )
    config = StreamConfig(height=32, width=32, num_frames=4, batch_size=8)
    (batch,) = OrderedBatches(manifest, config, source=open_store(str(workspace.latents)))
    assert batch.mean.shape[-2:] == (4, 4)
    assert batch.cond_frame.shape[-2:] == (32, 32)


def test_a_shard_holds_clips_of_one_tier_and_a_phase_may_read_the_better_one_alone(
    workspace: Workspace,
) -> None:
    path = workspace.filtered / "verdicts.jsonl"
    chosen = {"clip001", "clip003"}
    verdicts = [
        one.model_copy(update={"tier": "high-quality" if one.clip_id in chosen else "base"})
        for one in read_records(path, Verdict)
    ]
    write_records(path, verdicts)
    run(workspace)
    manifest, store = manifest_of(workspace), open_store(str(workspace.latents))
    found = {
        entry.key
        for shard in manifest.shards
        if shard.tier == "high-quality"
        for entry in read_index(store, shard).examples
    }
    assert found == chosen
    config = StreamConfig(height=16, width=32, num_frames=4, batch_size=2, tier="high-quality")
    batches = stream_batches(manifest, config, StreamPosition(), source=store, seed=1)
    seen = {clip for batch, _ in islice(batches, 3) for clip in batch.clip_ids}
    assert seen == chosen
    (held_out,) = OrderedBatches(manifest, config, source=store)  # of both tiers
    assert held_out.clip_ids == ("clip005",)


def test_a_tier_without_clips_is_a_sentence(encoded: Workspace) -> None:
    config = StreamConfig(height=16, width=32, num_frames=4, batch_size=2, tier="high-quality")
    with pytest.raises(ConfigError, match=r"loosen filter\.high_quality"):
        next(
            stream_batches(
                manifest_of(encoded),
                config,
                StreamPosition(),
                source=open_store(str(encoded.latents)),
                seed=1,
            )
        )


def test_a_clip_that_goes_changes_its_own_shard_only(encoded: Workspace) -> None:
    kept = load_annotated_clips(encoded)
    many = [
        one.__class__(
            clip=one.clip.model_copy(update={"clip_id": f"c{i}"}),
            annotation=one.annotation,
            split="train",
            tier=one.tier,
        )
        for i, one in enumerate(kept[i % len(kept)] for i in range(100))
    ]
    whole = {task.name: task for task in plan_shards(many, 10)}
    fewer = {task.name: task for task in plan_shards(many[:41] + many[42:], 10)}
    assert sorted(whole) == sorted(fewer)
    assert sum(whole[name] != fewer[name] for name in whole) == 1


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("data/filtered", "run `svd filter` first"),
        ("data/annotations", "run `svd annotate` first"),
        ("models/autoencoder", "run `svd autoencoder` first"),
    ],
)
def test_missing_input_says_which_stage_makes_it(
    workspace: Workspace, missing: str, sentence: str
) -> None:
    shutil.rmtree(workspace.root / missing)
    with pytest.raises(MissingInputError, match=sentence):
        run(workspace)


def test_kept_clip_that_no_index_knows_stops_the_stage(workspace: Workspace) -> None:
    path = workspace.filtered / "verdicts.jsonl"
    ghost = Verdict(clip_id="ghost", group_id="ghost", kept=True, reasons=(), split="train")
    write_records(path, [*read_records(path, Verdict), ghost])
    with pytest.raises(MissingInputError, match="clip ghost is kept but not in data/clips"):
        run(workspace)


def test_foreign_weights_are_refused(workspace: Workspace) -> None:
    weights = workspace.model("autoencoder") / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(IntegrityError, match=r"model\.json names"):
        run(workspace)


def test_motion_score_nobody_measured_is_a_sentence(workspace: Workspace) -> None:
    tree = yaml.safe_load(workspace.params_file.read_text())
    tree["encode"]["motion_score"] = "flow.raft"
    workspace.params_file.write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigError, match="no training clip has a motion score"):
        run(workspace)
