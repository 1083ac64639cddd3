"""The stage orbits: objects in, one tar of views per orbit out, in parallel and resumable."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from svd.atomic import new_folder
from svd.config.orbits import OrbitsConfig
from svd.data.orbits.archive import over_white_views, png_bytes, read_orbit
from svd.data.orbits.listing import assign_splits, list_objects
from svd.data.orbits.unit import OrbitTask, leave_mark, make_orbit, read_mark, rejected
from svd.errors import ConfigError
from svd.media.gallery import write_contact_sheet
from svd.runtime.fingerprint import stage_fingerprint
from svd.runtime.guarded import GuardedPool
from svd.runtime.pool import Fault
from svd.runtime.progress import track
from svd.runtime.tracking import Tracker
from svd.runtime.workspace import Workspace
from svd.types.artifact import StageReport, Value
from svd.types.base import write_records
from svd.types.orbit import OrbitMeta, RejectedObject

if TYPE_CHECKING:
    from svd.config.params import Params

INDEX, REJECTED = "index.jsonl", "rejected.jsonl"
_SHEET_ROWS, _SHEET_COLUMNS = 12, 7
HELDOUT = "heldout"  # its orbits as `svd protocol run gso` reads them


def run(params: "Params", workspace: Workspace, *, tracker: Tracker) -> StageReport:
    """Render or read the orbits of every object; one that gives none is recorded with its reason.

    Raises:
        ConfigError: No object gave views, on one side of the split or at all.
        MissingInputError: A source's folder is not there.
    """
    config = params.orbits
    live = workspace.runs / stage_fingerprint(workspace, "orbits")
    live.mkdir(parents=True, exist_ok=True)
    objects = list_objects(config, workspace.root, live / "objects", seed=params.seed)
    splits = assign_splits([one.object_id for one in objects], config.heldout_share)
    tasks = [
        OrbitTask(
            one,
            number,
            splits[one.object_id],
            config,
            str(workspace.root),
            str(live),
            params.seed,
        )
        for one in objects
        for number in range(config.orbits_per_object if one.kind == "mesh" else 1)
    ]
    render_all(tasks, config)
    ends = [read_mark(task.mark) for task in tasks]
    made = [end for end in ends if isinstance(end, OrbitMeta)]
    refused = {end.object_id: end for end in ends if isinstance(end, RejectedObject)}
    _check_splits(made, refused)
    publish(live, made, list(refused.values()), workspace.orbits)
    return _report(made, list(refused.values()), tracker)


def render_all(tasks: Sequence[OrbitTask], config: OrbitsConfig) -> None:
    """Make every orbit that has no mark yet; one that hangs or crashes costs itself alone."""
    waiting = [task for task in tasks if not task.mark.is_file()]
    finished = _outcomes(waiting, config)
    list(track(finished, total=len(waiting), description="seeing objects", unit="orbits"))


def _outcomes(waiting: Sequence[OrbitTask], config: OrbitsConfig) -> Iterator[str]:
    pool = GuardedPool(
        make_orbit, workers={"cpu": config.num_workers}, memory_mib=config.memory_mib
    )
    left = list(enumerate(waiting))[::-1]
    try:
        while True:
            while left and pool.has_room("cpu"):
                ticket, task = left.pop()
                pool.start(ticket, task, lane="cpu", timeout_s=config.timeout_s)
            done = pool.wait()
            if not done:
                return
            for ticket, result in done:
                if isinstance(result, Fault):
                    task = waiting[ticket]
                    leave_mark(task, rejected(task, result.reason, result.detail))
                yield waiting[ticket].orbit_id
    finally:
        pool.close()


def _check_splits(made: Sequence[OrbitMeta], refused: dict[str, RejectedObject]) -> None:
    found = {meta.split for meta in made}
    for split in ("train", "heldout"):
        if split not in found:
            first = next(iter(refused.values()), None)
            why = "" if first is None else f"; the first refused: {first.reason}: {first.detail}"
            raise ConfigError(f"orbits: no {split} object gave views{why}")


def publish(
    live: Path, made: Sequence[OrbitMeta], refused: Sequence[RejectedObject], out: Path
) -> None:
    """Put tars, records and pictures where the stage's output lies, all or nothing."""
    with new_folder(out) as partial:
        (partial / "tars").mkdir()
        for meta in made:
            shutil.copyfile(live / meta.tar_uri, partial / meta.tar_uri)
        write_records(partial / INDEX, made)
        write_records(partial / REJECTED, refused)
        heldout = [meta for meta in made if meta.split == "heldout"]
        _write_protocol_folder(partial, heldout)
        _draw_sheets(partial, made)
    shutil.rmtree(live)


def _write_protocol_folder(out: Path, heldout: Sequence[OrbitMeta]) -> None:
    """Write held-out orbits in the layout of `svd.evaluation.datasets.objects.GSO`."""
    root = out / HELDOUT
    for meta in heldout:
        folder = root / "gso" / meta.orbit_id
        folder.mkdir(parents=True)
        for view, picture in enumerate(read_orbit(out, meta)):
            (folder / f"{view:03d}.png").write_bytes(png_bytes(picture))
        facts = {
            "elevation_deg": meta.poses[0].elevation_deg if meta.poses else None,
            "azimuths_deg": [pose.azimuth_deg for pose in meta.poses],
            "renderer": meta.renderer,
            "hdri": meta.light,
        }
        (folder / "meta.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    names = "".join(f"{meta.orbit_id}\n" for meta in heldout)
    (root / "objects.txt").write_text(names, encoding="utf-8")


def _draw_sheets(out: Path, made: Sequence[OrbitMeta]) -> None:
    """Write a contact sheet of each split, an orbit a row."""
    for split in ("train", "heldout"):
        metas = [meta for meta in made if meta.split == split][:_SHEET_ROWS]
        rows = [over_white_views(read_orbit(out, meta)) for meta in metas]
        (out / "pictures").mkdir(exist_ok=True)
        write_contact_sheet(out / "pictures" / f"{split}.png", rows, columns=_SHEET_COLUMNS)


def _report(
    made: Sequence[OrbitMeta], refused: Sequence[RejectedObject], tracker: Tracker
) -> StageReport:
    counts = Counter(meta.split for meta in made)
    summary: dict[str, Value] = {
        "objects": len({meta.object_id for meta in made}),
        "train orbits": counts["train"],
        "held-out orbits": counts["heldout"],
        "views": sum(meta.num_views for meta in made),
        "objects refused": len(refused),
    }
    if refused:
        tracker.log_table(
            "orbits/refused",
            ("object", "reason", "detail"),
            [(one.object_id, one.reason, one.detail) for one in refused],
        )
    return StageReport(
        stage="orbits",
        summary=summary,
        warnings=tuple(
            f"{one.object_id} gives no views: {one.reason}: {one.detail}" for one in refused
        ),
        outputs=("data/orbits/index.jsonl", "data/orbits/pictures"),
    )
