"""How a section of params.yaml behaves: strict, closed, and explained in one sentence."""

from pydantic import BaseModel, ConfigDict


def _hyphenate(name: str) -> str:
    return name.replace("_", "-")


class Section(BaseModel):
    """A section of params.yaml: no unknown keys, no coercion, immutable."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class StageTree(BaseModel):
    """The root: one section per stage, named as the stage is, with hyphens."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        alias_generator=_hyphenate,
        populate_by_name=True,
    )
