"""What a recipe makes of the main chain's models."""

from typing import Final

from svd.config.base import StageTree
from svd.types.stage import CHAIN


class DeriveConfig(StageTree):
    """Which finetunes are made; a stage that is not planned leaves a record that says so.

    That record is what lets `dvc repro` and `dvc pull` take the whole graph, whatever is planned.
    """

    finetune_t2v: bool = False
    finetune_interpolation: bool = False
    finetune_decoder: bool = False
    lora: bool = False  # all adapters, and camera-motion, which chooses their clips
    finetune_multiview: bool = False  # from all priors; and its orbits, and their comparison

    def plans(self, stage: str) -> bool:
        """Return whether the stage is to do its work; the main chain always is."""
        if stage == "evaluate-finetunes":
            return any(getattr(self, name) for name in type(self).model_fields)
        return stage in CHAIN or bool(getattr(self, _field(stage)))


DERIVABLE: Final = tuple(field.alias or name for name, field in DeriveConfig.model_fields.items())


def derive_key(stage: str) -> str:
    """Return the key of the recipe that plans a derived stage, such as "derive.lora"."""
    if stage == "evaluate-finetunes":
        return "derive"
    return f"derive.{_field(stage).replace('_', '-')}"


def _field(stage: str) -> str:
    belongs_to = {
        "camera-motion": "lora",
        "orbits": "finetune-multiview",
        "encode-orbits": "finetune-multiview",
        "evaluate-multiview": "finetune-multiview",
    }
    name = belongs_to.get(stage, stage.partition("@")[0])
    return name.replace("-", "_")
