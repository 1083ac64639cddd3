"""What stage I is worth to stage II: held-out loss from the image model and from scratch.

    python benchmarks/stage_effect.py [--root .] [--steps 60] [--seeds 1 2]

Needs what `make demo` leaves: data/latents, models/autoencoder, models/pretrain-image. Trains
pretrain-video of the recipe in force twice per seed, in a temporary project over the same data, for
equally many steps; batches, noise and held-out clips of a seed are the same on both sides. Only the
start differs. The image model itself is one, of the recipe's seed.
The last line is JSON: `heldout_loss_ratio_vs_scratch`, below 1 where stage I helps.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import yaml

from svd.config.load import load_params
from svd.runtime.tracking import NullTracker
from svd.runtime.workspace import Workspace
from svd.training.loop.history import read_rows
from svd.training.stage import stages
from svd.training.stage.job import HistoryRow

STARTS = ("pretrain-image", "scratch")
SHARED = ("svd", "dvc.yaml", "data/latents", "models/autoencoder", "models/pretrain-image")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="project with a demo's data")
    parser.add_argument("--steps", type=int, default=60, help="optimizer steps of each run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    losses: dict[str, list[float]] = {start: [] for start in STARTS}
    for seed in options.seeds:
        for start in STARTS:
            loss, by_sigma = train(options.root.resolve(), start, seed, options.steps)
            losses[start].append(loss)
            shown = "  ".join(f"{name} {value:.4f}" for name, value in by_sigma.items())
            print(f"seed {seed}  from {start:<15} held-out loss {loss:.4f}   {shown}", flush=True)
    ratios = [a / b for a, b in zip(losses[STARTS[0]], losses[STARTS[1]], strict=True)]
    result = {
        "steps": options.steps,
        "seeds": options.seeds,
        "heldout_loss": losses,
        "ratios": ratios,
        "heldout_loss_ratio_vs_scratch": statistics.median(ratios),
    }
    print(json.dumps(result))


def train(root: Path, start: str, seed: int, steps: int) -> tuple[float, dict[str, float]]:
    """Return the held-out loss of the averaged weights, in all and by noise level."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        for name in SHARED:
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            (project / name).symlink_to(root / name)
        recipe = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
        section = recipe["pretrain-video"]
        recipe["seed"], section["init"] = seed, start
        section["phases"] = section["phases"][:1]
        section["phases"][0]["num_steps"] = steps
        section["validation"]["every_steps"] = steps
        (project / "params.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
        workspace = Workspace(project)
        params = load_params(workspace.params_file)
        stages.run("pretrain-video", params, workspace, tracker=NullTracker())
        last = read_rows(workspace.model("pretrain-video") / "history.jsonl", HistoryRow)[-1]
    if last.heldout_loss is None:
        raise SystemExit("the last row has no held-out loss")
    return last.heldout_loss, last.heldout_loss_by_sigma


if __name__ == "__main__":
    main()
