"""Where each stage's files lie: the one place that knows paths below the project's root."""

from dataclasses import dataclass
from pathlib import Path

from svd.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Workspace:
    """The folders of one checkout.

    Attributes:
        root: The folder that holds params.yaml and dvc.yaml.
    """

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> "Workspace":
        """Return the workspace at or above a folder (default: the current one).

        Raises:
            ConfigError: No params.yaml at or above it.
        """
        here = (start or Path.cwd()).resolve()
        for folder in (here, *here.parents):
            if (folder / "params.yaml").is_file():
                return cls(folder)
        raise ConfigError(
            f"no params.yaml in {here} or above it: run svd inside a checkout, or pass --root"
        )

    @property
    def params_file(self) -> Path:
        """The recipe in force."""
        return self.root / "params.yaml"

    @property
    def withdrawn(self) -> Path:
        """Sources that must not be used any more; kept in git, read by ingest."""
        return self.root / "withdrawn.jsonl"

    @property
    def raw(self) -> Path:
        """Out of ingest: index.jsonl, rejected.jsonl, videos/, truth/."""
        return self.root / "data" / "raw"

    @property
    def clips(self) -> Path:
        """Out of clip: index.jsonl, cuts.jsonl, clips/, bank/."""
        return self.root / "data" / "clips"

    @property
    def annotations(self) -> Path:
        """Out of annotate: annotations.jsonl, embeddings, report.json."""
        return self.root / "data" / "annotations"

    @property
    def filtered(self) -> Path:
        """Out of filter: verdicts.jsonl, report.json, pictures for the report."""
        return self.root / "data" / "filtered"

    @property
    def camera_motion(self) -> Path:
        """Out of camera-motion: labels.jsonl, report.json, pictures/."""
        return self.root / "data" / "camera-motion"

    @property
    def orbits(self) -> Path:
        """Out of orbits: index.jsonl, rejected.jsonl, tars/, heldout/, pictures/."""
        return self.root / "data" / "orbits"

    @property
    def orbit_latents(self) -> Path:
        """Out of encode-orbits: manifest.json, shards/*.tar, as `latents`."""
        return self.root / "data" / "orbit-latents"

    @property
    def multiview_evaluation(self) -> Path:
        """Out of evaluate-multiview: metrics.json, records.jsonl, sheet, videos/."""
        return self.root / "reports" / "multiview"

    @property
    def latents(self) -> Path:
        """Out of encode: manifest.json, shards/*.tar with an index beside each."""
        return self.root / "data" / "latents"

    def model(self, stage: str) -> Path:
        """Out of a training stage: weights.safetensors, model.json, history.jsonl."""
        return self.root / "models" / stage

    def derived(self, stage: str) -> Path:
        """Out of a stage that stands behind the main chain."""
        elsewhere = {
            "camera-motion": self.camera_motion,
            "orbits": self.orbits,
            "encode-orbits": self.orbit_latents,
            "evaluate-multiview": self.multiview_evaluation,
            "evaluate-finetunes": self.finetune_evaluation,
        }
        return elsewhere.get(stage, self.model(stage))

    @property
    def evaluation(self) -> Path:
        """Out of evaluate: metrics.json, records.jsonl, samples/."""
        return self.root / "reports" / "evaluate"

    @property
    def finetune_evaluation(self) -> Path:
        """Out of evaluate-finetunes: metrics.json, records.jsonl, contact sheets."""
        return self.root / "reports" / "finetunes"

    @property
    def registration(self) -> Path:
        """Out of register: candidate.json, card.md."""
        return self.root / "reports" / "register"

    @property
    def report(self) -> Path:
        """The page people open."""
        return self.root / "reports" / "index.html"

    @property
    def runs(self) -> Path:
        """Live state outside DVC, one folder per fingerprint; safe to delete when nothing runs."""
        return self.root / ".runs"

    def stage_run(self, stage: str) -> Path:
        """What the last run of a stage said (StageRun); outside DVC."""
        return self.state / "stages" / f"{stage}.json"

    @property
    def state(self) -> Path:
        """Local servers, the local store and caches; outside git and DVC."""
        return self.root / ".svd"
