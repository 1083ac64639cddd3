"""What happened during a run, told to W&B (offline by default) or to nobody."""

import contextlib
import logging
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, get_args, runtime_checkable

from svd.errors import BudgetError, ConfigError, TrainingDivergedError
from svd.runtime.fingerprint import fingerprint_of, stage_identity
from svd.runtime.revision import find_revision
from svd.runtime.workspace import Workspace
from svd.types.artifact import Value

if TYPE_CHECKING:
    import wandb

logger = logging.getLogger(__name__)

Mode = Literal["offline", "online", "shared", "disabled"]
STEP: Final = "train/step"  # the x axis; W&B's own step restarts at 0 when an offline run resumes
_PICTURES = frozenset({".png", ".jpg", ".jpeg"})
_VIDEOS: Final[dict[str, Literal["mp4", "webm", "gif"]]] = {
    ".mp4": "mp4",
    ".webm": "webm",
    ".gif": "gif",
}
_PACKAGES = ("svd", "torch", "torchvision", "deepspeed", "numpy", "av", "open_clip_torch")
_WORTH_AN_ALERT: Final = (TrainingDivergedError, BudgetError)  # a person must decide
_ID_LENGTH = 64  # W&B's bound on run ids
_OFFLINE_TIMEOUT_S = 120.0  # for the start without a server, which needs this machine alone
_START_TIMEOUT_S = 30.0  # for a server to answer, before the run is tracked offline instead
# For what is still unsent at a run's end; it stays in wandb/, from where `wandb sync` sends it.
_FINISH_TIMEOUT_S = 60.0


@runtime_checkable
class Tracker(Protocol):
    """Where a stage reports what happens while it runs."""

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Log scalars at a step of the stage; step becomes `train/step`, the x axis."""

    def log_media(self, key: str, path: Path, *, step: int | None = None) -> None:
        """Log a picture or a video file."""

    def log_table(
        self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Value | Path]]
    ) -> None:
        """Log a small table; a path in it is a picture or a video file."""

    def summarize(self, values: Mapping[str, Value]) -> None:
        """Set values that describe the whole run."""


class NullTracker:
    """Tracks nothing: ranks other than 0, and tests."""

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Ignore."""

    def log_media(self, key: str, path: Path, *, step: int | None = None) -> None:
        """Ignore."""

    def log_table(
        self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Value | Path]]
    ) -> None:
        """Ignore."""

    def summarize(self, values: Mapping[str, Value]) -> None:
        """Ignore."""


class WandbTracker:
    """Tells W&B; the first failure is logged and ends the telling, never the stage."""

    def __init__(self, run: "wandb.Run") -> None:
        self._run: wandb.Run | None = run

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Log scalars; a key without a folder goes below `train/`."""
        named = {key if "/" in key else f"train/{key}": float(v) for key, v in values.items()}
        self._tell(lambda run: run.log({**named, STEP: step}))

    def log_media(self, key: str, path: Path, *, step: int | None = None) -> None:
        """Log a picture (png, jpg), a video (mp4, webm, gif) or a page (html)."""
        at = {} if step is None else {STEP: step}
        self._tell(lambda run: run.log({key: _media(path), **at}))

    def log_table(
        self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Value | Path]]
    ) -> None:
        """Log a table."""
        self._tell(lambda run: run.log({key: _table(columns, rows)}))

    def summarize(self, values: Mapping[str, Value]) -> None:
        """Set values that describe the whole run."""
        self._tell(lambda run: run.summary.update(dict(values)))

    def alert(self, err: Exception) -> None:
        """Send what W&B sends to people: a mail or a message, as they have set it up there."""
        self._tell(lambda run: run.alert(title=f"svd: {type(err).__name__}", text=str(err)))

    def finish(self, *, exit_code: int) -> None:
        """End the run; a code other than 0 marks it failed."""
        self._tell(lambda run: run.finish(exit_code=exit_code))

    def _tell(self, say: Callable[["wandb.Run"], object]) -> None:
        if self._run is None:
            return
        try:
            say(self._run)
        except Exception as err:  # noqa: BLE001  (a tracker of any kind of failure must not cost a run)
            self._run = None
            _warn(err)


def tracker_run_id(stage: str, fingerprint: str) -> str:
    """Return the W&B id of a stage's run: equal fingerprints continue one run."""
    return f"{stage}-{fingerprint}"[:_ID_LENGTH]


def tracking_mode() -> Mode:
    """Return WANDB_MODE; offline is the default.

    Raises:
        ConfigError: It is none that W&B knows.
    """
    mode = os.environ.get("WANDB_MODE", "offline")
    for known in get_args(Mode):
        if mode == known:
            found: Mode = known
            return found
    raise ConfigError(f"WANDB_MODE={mode!r}: allowed are {', '.join(get_args(Mode))}")


@contextlib.contextmanager
def open_tracker(
    stage: str,
    *,
    workspace: Workspace,
    config: Mapping[str, object],
    group: str | None = None,
    job_type: str | None = None,
    fingerprint: str | None = None,
) -> Iterator[Tracker]:
    """Open the W&B run of a stage; it ends with the block, as failed if the block raises.

    The mode is WANDB_MODE: "offline" (default), "online", "shared" or "disabled". Files go to
    `wandb/` below the root. Ranks other than 0 and the mode "disabled" get a `NullTracker`; so
    does a stage whose W&B cannot start, after one warning.

    Args:
        stage: The stage's name; also the run's.
        workspace: The checkout.
        config: What to show as the run's config, e.g. the recipe. No secrets.
        group: The pipeline run; default SVD_PIPELINE_RUN, else the git commit.
        job_type: W&B's job type; default the stage.
        fingerprint: Names the run; default the stage's own fingerprint.

    Raises:
        ConfigError: WANDB_MODE is none of the above, or see `stage_identity`.
        MissingInputError: See `stage_identity`.
    """
    if tracking_mode() == "disabled" or os.environ.get("RANK", "0") != "0":
        yield NullTracker()
        return
    inputs = stage_identity(workspace, stage)
    run = _start(
        stage,
        workspace=workspace,
        config={**config, "run": _provenance(workspace, inputs)},
        group=group,
        job_type=job_type or stage,
        run_id=tracker_run_id(stage, fingerprint or fingerprint_of(stage, inputs)),
    )
    if run is None:
        yield NullTracker()
        return
    tracker = WandbTracker(run)
    try:
        yield tracker
    except BaseException as err:
        if isinstance(err, _WORTH_AN_ALERT):
            tracker.alert(err)
        tracker.finish(exit_code=1)
        raise
    tracker.finish(exit_code=0)


def _start(
    stage: str,
    *,
    workspace: Workspace,
    config: dict[str, object],
    group: str | None,
    job_type: str,
    run_id: str,
) -> "wandb.Run | None":
    """Start the run; offline, so that nothing is lost, if the server does not answer."""
    revision = find_revision(workspace.root)
    commit = None if revision is None else revision.commit
    try:
        _set_up_environment(workspace)
        import wandb

        def start(mode: Mode) -> "wandb.Run":
            return wandb.init(
                project=os.environ.get("WANDB_PROJECT", "svd"),
                id=run_id,
                name=stage,
                group=group or os.environ.get("SVD_PIPELINE_RUN") or commit,
                job_type=job_type,
                config=config,
                resume="allow",
                dir=str(workspace.root),
                mode=mode,
                # A git remote may carry a token in its address: we record the commit ourselves.
                settings=wandb.Settings(
                    silent=True,
                    disable_git=True,
                    save_code=False,
                    init_timeout=_OFFLINE_TIMEOUT_S if mode == "offline" else _START_TIMEOUT_S,
                    finish_timeout=_FINISH_TIMEOUT_S,
                ),
            )

        mode = tracking_mode()
        try:
            run = start(mode)
        except Exception as err:
            if mode == "offline":
                raise
            logger.warning(
                "the W&B server does not answer; tracked offline, `wandb sync` sends it later",
                extra={"error": f"{type(err).__name__}: {err}"},
            )
            wandb.teardown()  # its service still holds the run that did not start
            run = start("offline")
        run.define_metric(STEP)
        run.define_metric("train/*", step_metric=STEP)
        run.define_metric("*", step_metric=STEP)
    except Exception as err:  # noqa: BLE001  (a tracker of any kind of failure must not cost a run)
        _warn(err)
        return None
    return run


def _set_up_environment(workspace: Workspace) -> None:
    """Set what nobody has set; files stay in the project, so that a copy of `wandb/` is whole."""
    folder = workspace.root / "wandb"
    folder.mkdir(exist_ok=True)
    settings = {
        "WANDB_DATA_DIR": folder,  # bytes of tables and artifacts; default is below the home folder
        "WANDB_CACHE_DIR": workspace.state / "wandb-cache",
        "WANDB_MODE": "offline",
        "WANDB_ERROR_REPORTING": "false",
        "DO_NOT_TRACK": "1",
    }
    for name, value in settings.items():
        os.environ.setdefault(name, str(value))


def _provenance(workspace: Workspace, inputs: Mapping[str, str]) -> dict[str, object]:
    revision = find_revision(workspace.root)
    return {
        "commit": None if revision is None else revision.commit,
        "uncommitted": [] if revision is None else list(revision.changed),
        "inputs": dict(inputs),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _media(path: Path) -> Any:
    import wandb

    suffix = path.suffix.lower()
    if suffix in _PICTURES:
        return wandb.Image(str(path))
    if suffix in _VIDEOS:
        return wandb.Video(str(path), format=_VIDEOS[suffix])
    if suffix == ".html":
        return wandb.Html(path.read_text(encoding="utf-8"), inject=False)
    raise ConfigError(f"{path}: W&B shows png, jpg, mp4, webm, gif and html, not {suffix!r}")


def _table(columns: Sequence[str], rows: Sequence[Sequence[Value | Path]]) -> Any:
    import wandb

    data = [[_media(cell) if isinstance(cell, Path) else cell for cell in row] for row in rows]
    return wandb.Table(columns=list(columns), data=data, allow_mixed_types=True)


def _warn(err: Exception) -> None:
    logger.warning(
        "W&B failed; this run goes on without it",
        extra={"error": f"{type(err).__name__}: {err}"},
    )
