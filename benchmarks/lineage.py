"""How long lineage takes among a million clips: of one video, and of a whole version.

The bound is the way without an index: reading the same rows from JSON lines. Prints a table, then
one JSON object. Run it with `python benchmarks/lineage.py`.
"""

import hashlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from svd.data.lineage import ClipRow, find_rows, keep_table, source_videos, table_path
from svd.runtime.workspace import Workspace

NUM_CLIPS = 1_000_000
CLIPS_PER_VIDEO = 10  # about the paper's 11.09 (Table 1)
REPEATS = 5


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def seconds(call: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def scan(path: Path, video_id: str) -> list[ClipRow]:
    with path.open(encoding="utf-8") as file:
        rows = (ClipRow(*json.loads(line)) for line in file)
        return [row for row in rows if row.video_id == video_id]


def main() -> None:
    rows = [
        ClipRow(
            sha256(str(index // CLIPS_PER_VIDEO)),
            f"clip-{index}",
            "train",
            sha256(f"shard {index % 999}"),
            f"{index // CLIPS_PER_VIDEO}.mp4",
            "CC0-1.0",
        )
        for index in range(NUM_CLIPS)
    ]
    wanted = sha256("4242")
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder))
        table = table_path(workspace, keep_table(workspace, rows))
        lines = Path(folder) / "rows.jsonl"
        lines.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        found = find_rows(table, video_id=wanted)
        if sorted(found) != sorted(scan(lines, wanted)):
            raise SystemExit("the two ways disagree")
        by_video = seconds(lambda: find_rows(table, video_id=wanted))
        everything = seconds(lambda: source_videos(table))
        scanned = seconds(lambda: scan(lines, wanted))
        size_mb = table.stat().st_size / 1e6
    print(f"{NUM_CLIPS:,} clips, table of {size_mb:.1f} MB, medians of {REPEATS}")
    print(f"one video, by the table       {by_video:8.3f} s")
    print(f"one video, by scanning JSONL  {scanned:8.3f} s")
    print(f"all videos of a version       {everything:8.3f} s")
    result = {
        "seconds_for_one_video": round(by_video, 4),
        "seconds_for_all_videos": round(everything, 4),
        "speedup_vs_scanning": round(scanned / by_video, 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
