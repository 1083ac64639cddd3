"""Register: under which name and number a model is offered, and what it must show first."""

from pydantic import Field, model_validator

from svd.config.base import Section
from svd.types.gate import Gate


class RegisterConfig(Section):
    """Section `register` of the recipe."""

    # As in `artifacts:` of dvc.yaml; the grammar of GTO tags: <name>@v0.1.0, <name>#production#1.
    name: str = Field(default="svd-i2v", pattern=r"^[a-z0-9][a-z0-9-]*[a-z0-9]$", max_length=64)
    # Major and minor version; the patch counts up. Raise it when old users would be surprised.
    series: str = Field(default="0.1", pattern=r"^(0|[1-9]\d*)\.(0|[1-9]\d*)$")
    gates: tuple[Gate, ...] = Field(min_length=1)  # all must pass, or no version is made

    @model_validator(mode="after")
    def _gates_are_distinct(self) -> "RegisterConfig":
        seen: set[tuple[str, str, str | None]] = set()
        for gate in self.gates:
            key = (gate.metric, gate.comparison, gate.variant)
            if key in seen:
                raise ValueError(
                    f"register.gates: two gates are {gate.comparison} on {gate.metric!r}; keep one"
                )
            seen.add(key)
        return self
