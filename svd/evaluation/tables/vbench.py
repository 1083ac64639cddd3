"""Results of the official VBench program: `*_eval_results.json`, read and totalled."""

import json
from pathlib import Path

from svd.errors import ConfigError, IntegrityError, MissingInputError
from svd.evaluation.metrics.vbench import SUITES, Totals, totals


def read_vbench_results(path: Path) -> dict[str, float]:
    """Return dimension -> raw score in 0..1.

    Each value of the file is a score or, as VBench writes it, a list that begins with one; names
    may be written with spaces. `imaging_quality` above 1 is on VBench's old scale of 100.

    Raises:
        MissingInputError: No such file.
        IntegrityError: Not such a file.
    """
    if not path.is_file():
        raise MissingInputError(f"{path}: no such file")
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        items = {key.replace(" ", "_"): value for key, value in tree.items()}
        scores = {
            key: float(value[0] if isinstance(value, list) else value)
            for key, value in items.items()
        }
    except (ValueError, AttributeError, TypeError, IndexError) as err:
        raise IntegrityError(f"{path}: not VBench results (dimension -> [score, ...])") from err
    if scores.get("imaging_quality", 0) > 1:
        scores["imaging_quality"] /= 100
    return scores


def score_vbench_results(path: Path, suite: str) -> Totals:
    """Return the totals of a results file.

    Raises:
        ConfigError: The suite is unknown, or a dimension is none of it.
        MissingInputError: No such file.
        IntegrityError: Not such a file.
    """
    if suite not in SUITES:
        raise ConfigError(f"suite {suite!r}: known are {', '.join(SUITES)}")
    return totals(SUITES[suite], read_vbench_results(path))
