"""The filter stage: thresholds -> a verdict on every clip, splits, and the dataset report."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from svd.atomic import new_folder
from svd.config.curation import FilterConfig
from svd.curation.clip.bank import FrameBank
from svd.curation.filter.judge import judge
from svd.curation.filter.pictures import Tile, draw_sheet
from svd.curation.filter.report import count_reasons, histogram, scores_to_draw, table_row
from svd.curation.filter.thresholds import Bounds, resolve_bounds
from svd.errors import MissingInputError
from svd.runtime.tracking import Tracker
from svd.runtime.workspace import Workspace
from svd.types.annotation import Annotation, Verdict
from svd.types.artifact import StageReport
from svd.types.base import read_records, write_records
from svd.types.curation import ClipReport, FilterReport, Picture

if TYPE_CHECKING:
    from svd.config.params import Params


def run(params: "Params", workspace: Workspace, *, tracker: Tracker) -> StageReport:
    """Judge all clips and write the dataset report."""
    report = filter_clips(
        params.filter,
        annotations=workspace.annotations,
        clips=workspace.clips,
        out=workspace.filtered,
    )
    tracker.summarize(
        {
            "filter/kept": report.num_kept,
            "filter/train": report.num_train,
            "filter/heldout": report.num_heldout,
            "filter/high_quality": report.num_high_quality,
        }
        | {f"filter/dropped/{name}": count for name, count in report.num_by_reason.items()}
    )
    for picture in report.pictures:
        tracker.log_media(f"filter/{picture.title}", workspace.filtered / picture.path)
    return StageReport(
        stage="filter",
        summary={
            "clips": report.table[0].num_clips,
            "kept": report.num_kept,
            "train": report.num_train,
            "held out": report.num_heldout,
            "high quality": report.num_high_quality,
            **{f"dropped by {name}": count for name, count in report.num_by_reason.items()},
        },
        outputs=(
            "data/filtered/report.json",
            *(f"data/filtered/{p.path}" for p in report.pictures),
        ),
    )


def filter_clips(
    config: FilterConfig, *, annotations: Path, clips: Path, out: Path
) -> FilterReport:
    """Judge the clips of an annotation table.

    Args:
        config: The stage's section.
        annotations: Folder with annotations.jsonl.
        clips: Folder with report.json and bank/, for the pictures.
        out: Folder to make; replaced as a whole when all is done.

    Raises:
        MissingInputError: There are no annotations.
        ConfigError: A threshold names a score that no clip has.
    """
    table = annotations / "annotations.jsonl"
    if not table.is_file():
        raise MissingInputError(f"{table} is not there: run `svd annotate` to make it")
    rows = list(read_records(table, Annotation))
    bounds = resolve_bounds(rows, config.in_force)
    verdicts = judge(rows, bounds, config)
    with new_folder(out) as build:
        write_records(build / "verdicts.jsonl", verdicts)
        pictures = _draw_pictures(rows, verdicts, config, clips=clips, out=build)
        report = _report(rows, verdicts, bounds, pictures, clips, config)
        (build / "report.json").write_text(report.canonical_json(), encoding="utf-8")
    return report


def _draw_pictures(
    rows: Sequence[Annotation],
    verdicts: Sequence[Verdict],
    config: FilterConfig,
    *,
    clips: Path,
    out: Path,
) -> tuple[Picture, ...]:
    """Draw a sheet of kept clips per split and one of rejected clips per reason."""
    drawable = [
        (row, verdict) for row, verdict in zip(rows, verdicts, strict=True) if row.bank_frames
    ]
    sheets: dict[tuple[str, str], list[tuple[Annotation, str]]] = defaultdict(list)
    for row, verdict in drawable:
        if verdict.split is not None:
            sheets["kept", verdict.split].append((row, _summary(row)))
        for reason in verdict.reasons:
            sheets["rejected", reason.score].append(
                (row, reason.sentence.removeprefix(f"{reason.score} is "))
            )
    banks: dict[str, FrameBank] = {}
    pictures: list[Picture] = []
    for (kind, name), members in sorted(sheets.items()):
        shown = _spread(members, config.num_examples)
        for row, _ in shown:
            if row.video_id not in banks:
                banks[row.video_id] = FrameBank(clips / "bank" / row.video_id)
        tiles = [
            Tile(row.video_id, row.bank_frames[len(row.bank_frames) // 2], (row.clip_id[:12], line))
            for row, line in shown
        ]
        path = f"pictures/{kind}-{name}.jpg"
        draw_sheet(out / path, tiles, banks)
        title = f"{kind}: {name}, {len(shown)} of {len(members)}"
        pictures.append(
            Picture(
                path=path,
                title=title,
                kind="kept" if kind == "kept" else "rejected",
                reason=None if kind == "kept" else name,
                clip_ids=tuple(row.clip_id for row, _ in shown),
            )
        )
    return tuple(pictures)


def _spread(members: Sequence[tuple[Annotation, str]], count: int) -> list[tuple[Annotation, str]]:
    """Return at most `count` members, evenly spread over the sequence."""
    if len(members) <= count:
        return list(members)
    return [members[index * len(members) // count] for index in range(count)]


def _summary(row: Annotation) -> str:
    motion = row.scores.get("motion.dis_px")
    seconds = f"{row.duration_s:.1f} s"
    return seconds if motion is None else f"{seconds}, motion {motion:.2f}"


def _report(
    rows: Sequence[Annotation],
    verdicts: Sequence[Verdict],
    bounds: dict[str, Bounds],
    pictures: tuple[Picture, ...],
    clips: Path,
    config: FilterConfig,
) -> FilterReport:
    clip_report = ClipReport.parse(
        (clips / "report.json").read_text(encoding="utf-8"), origin=str(clips / "report.json")
    )
    num_videos = max(1, clip_report.num_videos - clip_report.num_rejected)
    kept = frozenset(verdict.clip_id for verdict in verdicts if verdict.kept)
    of_split = {
        split: frozenset(verdict.clip_id for verdict in verdicts if verdict.split == split)
        for split in ("train", "heldout")
    }
    high_quality = frozenset(one.clip_id for one in verdicts if one.tier == "high-quality")
    quality_rows = (
        ()
        if config.high_quality is None
        else (table_row("high quality", [row for row in rows if row.clip_id in high_quality]),)
    )
    short_of = Counter(reason.score for one in verdicts for reason in one.short_of)
    group_of = {row.clip_id: row.group_id for row in rows}
    every, alone = count_reasons(verdicts)
    return FilterReport(
        table=(
            table_row("all clips", rows),
            table_row("kept", [row for row in rows if row.clip_id in kept]),
            table_row("train", [row for row in rows if row.clip_id in of_split["train"]]),
            table_row("held out", [row for row in rows if row.clip_id in of_split["heldout"]]),
            *quality_rows,
        ),
        num_high_quality=len(high_quality),
        num_short_of=dict(sorted(short_of.items())),
        num_kept=len(kept),
        num_train=len(of_split["train"]),
        num_heldout=len(of_split["heldout"]),
        num_groups_train=len({group_of[clip] for clip in of_split["train"]}),
        num_groups_heldout=len({group_of[clip] for clip in of_split["heldout"]}),
        num_by_reason=every,
        num_only_by_reason=alone,
        histograms=tuple(
            histogram(name, rows, kept, bounds.get(name)) for name in scores_to_draw(rows, bounds)
        ),
        pictures=pictures,
        clips_per_video_native=round(clip_report.num_shots_native / num_videos, 3),
        clips_per_video_cascade=round(clip_report.num_shots / num_videos, 3),
    )
