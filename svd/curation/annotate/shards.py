"""The three steps of a shard: what every clip gets, what networks say, RAFT on chosen clips.

Each is a pure function of the shard, a few clips of one video, and of the steps before it, and
leaves one file, written last: its done-mark. They are apart because they want different machines:
the first runs on every core, the others where the GPUs are. Pictures travel as the bank's JPEG.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Literal

from svd.config.curation import AnnotateConfig, BankConfig, ScoreRange, TextConfig
from svd.curation.annotate import raft
from svd.curation.annotate.camera import CameraAnnotator
from svd.curation.annotate.captions import measured_caption
from svd.curation.annotate.dedup import dedup_scorer, hash_frames
from svd.curation.annotate.look import LookAnnotator
from svd.curation.annotate.models import Models
from svd.curation.annotate.motion import MotionAnnotator
from svd.curation.annotate.overlay_text import TextAnnotator
from svd.curation.annotate.raft import RaftScorer
from svd.curation.annotate.scoring import Annotator, ClipView, Measured
from svd.curation.annotate.weights import ModelWeights
from svd.curation.clip.bank import FrameBank
from svd.errors import MediaError
from svd.types.annotation import Annotation, Caption, Scorer
from svd.types.base import Record, read_records, write_records
from svd.types.video import Clip

Step = Literal["measure", "models", "raft"]


class Addition(Record):
    """What a later step adds to a clip's annotation."""

    clip_id: str
    scores: dict[str, float]
    missing: dict[str, str]
    captions: tuple[Caption, ...] = ()
    scorers: dict[str, Scorer]
    embedding: str | None = None  # see clip_scores.encode_embedding


@dataclass(frozen=True, slots=True)
class ShardTask:
    """Annotate a few clips of one video.

    Attributes:
        step: Which step to do.
        clips: In the order of the video.
        folder: Out of the clip stage; clips and banks lie below it.
        config: The stage's section.
        bank_config: How the bank was made.
        weights: Of the networks; looked up once, for all shards.
        targets: File that each step writes.
    """

    step: Step
    clips: tuple[Clip, ...]
    folder: Path
    config: AnnotateConfig
    bank_config: BankConfig
    weights: ModelWeights
    targets: Mapping[Step, Path]

    def views(self) -> Iterator[ClipView]:
        """Yield the clips as annotators see them; pictures go when a view goes."""
        bank = FrameBank(self.folder / "bank" / self.clips[0].span.video_id)
        for clip in self.clips:
            yield ClipView(clip, bank, self.folder / clip.uri)


def annotate_shard(task: ShardTask) -> None:
    """Do a shard's step."""
    match task.step:
        case "measure":
            _measure_shard(task)
        case "models":
            _model_shard(task)
        case "raft":
            _raft_shard(task)


def _measure_shard(task: ShardTask) -> None:
    """First step: scores, hashes and the measured caption, from the bank alone."""
    annotators = _annotators(task.config.text, task.bank_config)
    write_records(
        task.targets["measure"], (_measure(view, annotators, task.config) for view in task.views())
    )


@cache
def _annotators(text: TextConfig | None, bank_config: BankConfig) -> tuple[Annotator, ...]:
    """Build the annotators once per process; their models load at the first clip."""
    annotators: list[Annotator] = [
        MotionAnnotator(bank_config),
        CameraAnnotator(bank_config),
        LookAnnotator(),
    ]
    if text is not None:
        annotators.append(TextAnnotator(text))
    return tuple(annotators)


def _measure(view: ClipView, annotators: Sequence[Annotator], config: AnnotateConfig) -> Annotation:
    found = [annotator.measure(view).named(annotator.scorer.name) for annotator in annotators]
    scores = {name: value for one in found for name, value in one.scores.items()}
    scorers = {annotator.scorer.name: annotator.scorer for annotator in annotators}
    return Annotation(
        clip_id=view.clip.clip_id,
        video_id=view.clip.span.video_id,
        num_frames=view.clip.num_frames,
        duration_s=view.clip.duration_s,
        scores=scores,
        missing={name: reason for one in found for name, reason in one.missing.items()},
        captions=(measured_caption(view, scores),),
        hashes=hash_frames(view, config.dedup),
        group_id=view.clip.clip_id,
        scorers=scorers | {"dedup": dedup_scorer(config.dedup)},
        bank_frames=tuple(view.frames),
    )


def _model_shard(task: ShardTask) -> None:
    """Second step: what networks say, a batch of clips at a time."""
    config = task.config.models
    if config is None:
        raise ValueError("a model shard needs annotate.models")
    models = _models(config, task.weights)
    captions = {
        row.clip_id: row.captions for row in read_records(task.targets["measure"], Annotation)
    }
    additions: list[Addition] = []
    views = task.views()
    while batch := list(islice(views, config.clips_per_batch)):
        known = [captions[view.clip.clip_id] for view in batch]
        additions += [
            Addition(
                clip_id=view.clip.clip_id,
                scores=said.measured.scores,
                missing=said.measured.missing,
                captions=said.captions,
                scorers=models.scorers,
                embedding=said.embedding,
            )
            for view, said in zip(batch, models.look(batch, known), strict=True)
        ]
    write_records(task.targets["models"], additions)


# Built once per process; the networks inside load at the first clip.
_models = cache(Models)


def _raft_shard(task: ShardTask) -> None:
    """Third step: RAFT flow of chosen clips, which are decoded for it."""
    config = task.config.raft
    if config is None or task.weights.raft is None:
        raise ValueError("a RAFT shard needs annotate.raft and its weights")
    scorer = RaftScorer(config, task.bank_config, task.weights.raft)
    scores = _scores_so_far(task)
    additions: list[Addition] = []
    for clip in task.clips:
        why_not = why_not_chosen(scores[clip.clip_id], config.only)
        if why_not is None:
            measured = _flow_of(clip, task.folder / clip.uri, scorer)
        else:
            measured = Measured(missing=dict.fromkeys(raft.SCORES, why_not))
        full = measured.named(raft.NAME)
        additions.append(
            Addition(
                clip_id=clip.clip_id,
                scores=full.scores,
                missing=full.missing,
                scorers={} if why_not else {raft.NAME: scorer.scorer},
            )
        )
    write_records(task.targets["raft"], additions)


def _flow_of(clip: Clip, file: Path, scorer: RaftScorer) -> Measured:
    """Return a clip's flow; a clip that cannot be decoded costs its own scores only."""
    try:
        return scorer.measure(clip, file)
    except MediaError as err:
        reason = f"{err.reason}: {err.detail}"
        return Measured(missing=dict.fromkeys(raft.SCORES, reason))


def _scores_so_far(task: ShardTask) -> dict[str, dict[str, float]]:
    """Return the scores of the first steps by clip_id."""
    scores = {
        row.clip_id: dict(row.scores) for row in read_records(task.targets["measure"], Annotation)
    }
    if task.targets["models"].is_file():
        for addition in read_records(task.targets["models"], Addition):
            scores[addition.clip_id] |= addition.scores
    return scores


def why_not_chosen(scores: Mapping[str, float], only: Mapping[str, ScoreRange]) -> str | None:
    """Return why a clip is left out, None if it is chosen."""
    for name, wanted in sorted(only.items()):
        value = scores.get(name)
        if value is None:
            return f"not chosen: {name} was not measured"
        if wanted.min is not None and value < wanted.min:
            return f"not chosen: {name} is {value:.4g}, below {wanted.min:.4g}"
        if wanted.max is not None and value > wanted.max:
            return f"not chosen: {name} is {value:.4g}, above {wanted.max:.4g}"
    return None
