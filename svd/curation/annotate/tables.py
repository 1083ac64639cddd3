"""What lies beside the records of the annotations: numbers as Parquet, embeddings as an array."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from svd.atomic import new_file
from svd.types.annotation import Annotation

TABLE_NAME: Final = "annotations.parquet"
EMBEDDINGS_NAME: Final = "embeddings.npy"


def write_score_table(path: Path, rows: Sequence[Annotation]) -> None:
    """Write the annotations' numbers as Parquet, atomically; equal rows give equal bytes.

    A column per score, so that thresholds are queries; a clip that lacks a score has null there.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = sorted({name for row in rows for name in row.scores})
    columns = {
        "clip_id": pa.array([row.clip_id for row in rows], pa.string()),
        "video_id": pa.array([row.video_id for row in rows], pa.string()),
        "group_id": pa.array([row.group_id for row in rows], pa.string()),
        "num_frames": pa.array([row.num_frames for row in rows], pa.int64()),
        "duration_s": pa.array([row.duration_s for row in rows], pa.float64()),
    }
    for name in names:
        columns[name] = pa.array([row.scores.get(name) for row in rows], pa.float64())
    with new_file(path) as partial:
        pq.write_table(pa.table(columns), partial, compression="zstd")


def write_embeddings(
    path: Path, rows: Sequence[Annotation], embeddings: Mapping[str, np.ndarray]
) -> None:
    """Write float16 (clips, d): a row per annotation, in their order, zeros where there is none.

    Args:
        path: The file; its folder exists.
        rows: The annotations.
        embeddings: By clip_id, all of one size; at least one.
    """
    size = len(next(iter(embeddings.values())))
    array = np.zeros((len(rows), size), dtype=np.float16)
    for index, row in enumerate(rows):
        if row.clip_id in embeddings:
            array[index] = embeddings[row.clip_id]
    np.save(path, array)
