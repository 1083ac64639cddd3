"""How long the graph of dvc.yaml takes one stage at a time, and with branches side by side.

Every stage's command is replaced by a wait of equal length, so the figures are of the order alone:
`dvc repro`, the flow with one place for stages that may use a GPU, and the flow with four, in turn,
each in a project of its own.

    python benchmarks/side_by_side.py --wait-s 5 --rounds 2
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from svd.runtime.graph import expand_stages

ROOT = Path(__file__).parents[1]


def make_project(root: Path, wait_s: float) -> Path:
    """Write a project with the stages of this one, each of which waits and writes its outs."""
    tree = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    stages: dict[str, Any] = {}
    for name, stage in expand_stages(tree["stages"]).items():
        outs = [str(next(iter(out)) if isinstance(out, dict) else out) for out in stage["outs"]]
        made = " && ".join(f"mkdir -p {out} && echo {name} > {out}/made" for out in outs)
        ours = ("data/", "models/", "reports/")
        deps = [dep for dep in stage.get("deps", []) if str(dep).startswith(ours)]
        stages[name] = {"cmd": f"sleep {wait_s:g} && {made}", "deps": deps, "outs": outs}
    root.mkdir()
    for name in [name for name in stages if "@" in name]:  # DVC takes such names from a foreach
        group, _, item = name.partition("@")
        text = yaml.safe_dump(stages.pop(name)).replace(name, f"{group}@${{item}}")
        members = stages.setdefault(group, {"foreach": [], "do": yaml.safe_load(text)})
        members["foreach"].append(item)
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}), encoding="utf-8")
    (root / "params.yaml").write_text("seed: 1\n", encoding="utf-8")
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=root, check=True)
    return root


def time_repro(root: Path) -> float:
    """Return seconds of a plain `dvc repro`."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "dvc", "repro", "-q"], cwd=root, check=True)
    return time.perf_counter() - started


def time_flow(root: Path, gpu_jobs: int) -> float:
    """Return seconds of the flow, in a process whose Prefect server is up before the clock runs."""
    environment = {**os.environ, "SVD_GPU_JOBS": str(gpu_jobs), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, __file__, "--flow", str(root)],
        env=environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return float(done.stdout.split()[-1])


def run_flow(root: Path) -> None:
    """Run the flow in this process and print its seconds."""
    from prefect.testing.utilities import prefect_test_harness

    from flows import full_pipeline
    from svd.types.stage import STAGES

    os.chdir(root)
    with (
        prefect_test_harness(server_startup_timeout=120),
        mock.patch.object(full_pipeline, "publish_report"),
    ):
        started = time.perf_counter()
        full_pipeline.full_pipeline(to_stage=STAGES[-1])
        print(time.perf_counter() - started)


def main() -> None:
    """Measure the three in turn; print medians and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wait-s", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--flow", type=Path)
    arguments = parser.parse_args()
    if arguments.flow is not None:
        run_flow(arguments.flow)
        return
    seconds: dict[str, list[float]] = {"dvc repro": [], "flow, 1 GPU": [], "flow, 4 GPUs": []}
    with tempfile.TemporaryDirectory() as folder:
        for index in range(arguments.rounds):
            places = [
                make_project(Path(folder) / f"{index}-{kind}", arguments.wait_s) for kind in "abc"
            ]
            seconds["dvc repro"].append(time_repro(places[0]))
            seconds["flow, 1 GPU"].append(time_flow(places[1], 1))
            seconds["flow, 4 GPUs"].append(time_flow(places[2], 4))
            locks = {(place / "dvc.lock").read_text(encoding="utf-8") for place in places}
            print(f"round {index + 1}: {len(locks)} different dvc.lock among three")
    base = statistics.median(seconds["dvc repro"])
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:>13}  {median:7.1f} s  {base / median:5.2f} x")


if __name__ == "__main__":
    main()
