"""The whole chain at the smallest size that is still real: seconds a stage, no network."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from svd.types.stage import TRAINING_STAGES

ROOT = Path(__file__).parents[2]


def micro_recipe(*, derives: bool) -> dict[str, Any]:
    """Return the laptop recipe on a few synthetic videos, with a handful of steps per stage."""
    recipe = yaml.safe_load((ROOT / "params.yaml").read_text())
    recipe["derive"] = dict.fromkeys(recipe["derive"], derives)
    recipe["ingest"]["sources"] = [
        {
            "kind": "synthetic",
            "num_videos": 5,
            "num_duplicates": 1,
            "min_seconds": 5.0,
            "max_seconds": 6.0,
            "width": 160,
            "height": 90,
            "photos": [],
            "num_paintings": 6,
            # Static twice, so that a clip of every camera class is among those for training.
            "kinds": ["hard-cuts", "pan", "static", "zoom-in", "static"],
        }
    ]
    recipe["clip"]["min_clip_s"] = 1.0
    recipe["annotate"]["clips_per_shard"] = 1
    recipe["annotate"]["text"] = None
    recipe["filter"]["thresholds"] = {"look.brightness": {"min": 0.01}}
    recipe["filter"]["split"] = {"heldout_share": 0.3, "min_heldout_clips": 4}
    recipe["autoencoder"]["training"] |= {"num_steps": 6, "lr_warmup_steps": 2}
    recipe["autoencoder"]["training"]["checkpoint_every_steps"] = 2
    recipe["finetune-decoder"]["training"] |= {
        "num_steps": 6,
        "lr_warmup_steps": 2,
        "checkpoint_every_steps": 2,
        "perceptual": None,
    }
    recipe["finetune-decoder"]["training"]["adversary"]["start_step"] = 3
    for name in {stage.partition("@")[0] for stage in TRAINING_STAGES}:
        section = recipe[name]
        section["phases"][-1] |= {"num_steps": 6, "lr_warmup_steps": 2}
        section["checkpoint"]["every_steps"] = 2
        section["validation"] |= {"every_steps": 6, "num_examples": 4}
        section["log_every_steps"] = 2
    recipe["evaluate"]["num_clips"] = 4
    recipe["evaluate"]["controls"]["num_clips"] = 2
    recipe["evaluate"]["sampling"]["schedule"]["num_steps"] = 2
    recipe["evaluate"]["video_distance"]["extractor"] = "tiny"
    recipe["evaluate"]["video_distance"]["num_resamples"] = 10
    recipe["evaluate"]["lpips"] = "none"
    recipe["evaluate-finetunes"]["decoder"] |= {"num_clips": 4, "num_frames": 8}
    for trial in ("interpolation", "camera", "motion"):
        section = recipe["evaluate-finetunes"][trial]
        section["num_clips"] = 4
        section["sampling"]["schedule"]["num_steps"] = 2
    recipe["orbits"]["sources"] = [{"kind": "procedural", "num_objects": 4}]
    recipe["orbits"]["orbits_per_object"] = 1
    recipe["evaluate-multiview"] |= {"num_orbits": 2, "seeds": [1], "lpips": "tiny"}
    recipe["evaluate-multiview"]["sampling"]["schedule"]["num_steps"] = 2
    recipe["evaluate-finetunes"]["seeds"] = [1]
    recipe["evaluate-finetunes"]["motion"]["buckets"] = [0, 128, 255]
    return recipe


def micro_project(root: Path, *, derives: bool = False) -> Path:
    """Make a git and DVC project with this code and the micro recipe.

    Args:
        root: Its folder.
        derives: Whether the recipe plans all that can be derived, or nothing.
    """
    root.mkdir(parents=True, exist_ok=True)
    (root / "params.yaml").write_text(
        yaml.safe_dump(micro_recipe(derives=derives), sort_keys=False)
    )
    (root / "withdrawn.jsonl").touch()
    (root / "dvc.yaml").write_bytes((ROOT / "dvc.yaml").read_bytes())
    (root / ".gitignore").write_bytes((ROOT / ".gitignore").read_bytes())
    (root / ".dvcignore").write_bytes((ROOT / ".dvcignore").read_bytes())
    (root / "svd").symlink_to(ROOT / "svd")
    for command in (
        ["git", "init", "-q"],
        [sys.executable, "-m", "dvc", "init", "-q"],
        ["git", "add", "."],
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "start"],
    ):
        subprocess.run(command, cwd=root, check=True, capture_output=True)
    return root
