"""How long a sweep of thresholds over millions of clips takes, against a query per combination.

    python benchmarks/sweep.py [--rows 10000000]

Scores of four annotations with the paper's shares (0, 12.5, 25, 50 %): 256 combinations. The peer
asks one query per combination of the same Parquet file, with bounds already known; a sample of them
is asked and the median stands for the rest. The last line is JSON.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import duckdb

from svd.config.curation import FilterConfig, SplitConfig
from svd.curation.filter.score_table import ScoreTable
from svd.curation.filter.sweep import PAPER_SHARES, Axis, sweep
from svd.types.curation import SweepReport

AXES = (
    Axis("motion.dis_px", "lowest"),
    Axis("clip.similarity", "lowest"),
    Axis("aesthetics.score", "lowest"),
    Axis("text.area", "highest"),
)
WITHIN = {"lowest": ">=", "highest": "<="}
ROUNDS = 3
SAMPLED = 12  # combinations asked one by one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    num_rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "annotations.parquet"
        write_table(path, num_rows)
        config = FilterConfig(thresholds={}, split=SplitConfig(heldout_share=0.01))
        sweeps, queries = [], []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            report = sweep(ScoreTable.open(path), AXES, config, shares=PAPER_SHARES)
            sweeps.append(time.perf_counter() - started)
            queries += time_queries(path, report)
    one_by_one = statistics.median(queries) * len(report.rows)
    result = {
        "rows": num_rows,
        "combinations": len(report.rows),
        "sweep_s": round(statistics.median(sweeps), 3),
        "query_per_combination_s": round(one_by_one, 1),  # extrapolated from the sampled ones
        "speedup_vs_query_per_combination": round(one_by_one / statistics.median(sweeps), 1),
    }
    for name, value in result.items():
        print(f"{name:36} {value:>14,}")
    print(json.dumps(result))


def write_table(path: Path, num_rows: int) -> None:
    """Random scores of plausible shape: skewed motion, many clips without text, some nulls."""
    connection = duckdb.connect()
    connection.execute("SELECT setseed(0.5)")
    connection.execute(
        f"""COPY (SELECT
            printf('%020x', i) AS clip_id, printf('%016x', i // 11) AS video_id,
            printf('%020x', i) AS group_id, 240 + i % 200 AS num_frames,
            8.0 + (i % 200) / 24.0 AS duration_s, -ln(random() + 1e-9) AS "motion.dis_px",
            0.2 + 0.1 * random() AS "clip.similarity", 4.5 + 2 * random() AS "aesthetics.score",
            CASE WHEN i % 97 = 0 THEN NULL WHEN random() < 0.5 THEN 0 ELSE 0.3 * random() END
                AS "text.area"
        FROM range({num_rows}) AS rows(i)) TO '{path}' (FORMAT parquet)"""
    )
    connection.close()


def time_queries(path: Path, report: SweepReport) -> list[float]:
    """Ask some combinations one at a time; their counts must be the sweep's."""
    connection = duckdb.connect()
    seconds = []
    places = {share: place for place, share in enumerate(report.shares)}
    for row in report.rows[5 :: len(report.rows) // SAMPLED]:
        conditions = [
            f'"{axis.score}" {WITHIN[axis.drops]} {axis.bounds[places[share]]}'
            for axis, share in zip(report.axes, row.shares, strict=True)
            if share
        ]
        started = time.perf_counter()
        where = " AND ".join(conditions)
        query = f"SELECT count(*), sum(duration_s) FROM read_parquet('{path}') WHERE {where}"
        found = connection.execute(query).fetchall()[0][0]
        seconds.append(time.perf_counter() - started)
        if found != row.num_clips:
            raise SystemExit(f"{row.shares}: sweep says {row.num_clips}, a query {found}")
    return seconds


if __name__ == "__main__":
    main()
