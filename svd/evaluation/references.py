"""Published numbers, and whether one of ours may be put beside them.

They lie in references.yaml, each with its source. A value is shown in any case; it is shown as
comparable only if nothing that changes the number differs.
"""

import json
from functools import cache
from importlib.resources import files

import yaml
from pydantic import Field

from svd.types.artifact import MetricRecord
from svd.types.base import Record


class Reference(Record):
    """A number somebody published."""

    protocol: str  # in svd.evaluation.protocols.catalogue
    metric: str  # MetricRecord.name it would be compared with
    value: float
    system: str
    task: str  # what was measured on what, for a person
    num: int | None = Field(default=None, gt=0)  # examples; None if the source does not say
    variant: str | None = None  # variant id of its protocol; None if the source does not pin it
    split: str | None = None  # of its data; None if no published split exists
    differs: str  # what its protocol does that ours does not, or does not state, as a clause
    source: str
    beside: tuple[str, ...] = ()  # records of stage evaluate it is shown beside
    inferred: bool = False  # the paper's own table could not be read


@cache
def published() -> tuple[Reference, ...]:
    """Return all references in the order of references.yaml."""
    text = files("svd.evaluation").joinpath("references.yaml").read_text(encoding="utf-8")
    return tuple(
        Reference.parse(json.dumps(tree), origin="references.yaml") for tree in yaml.safe_load(text)
    )


def references_of(protocol: str) -> tuple[Reference, ...]:
    """Return what others published of a protocol."""
    return tuple(one for one in published() if one.protocol == protocol)


def differences(record: MetricRecord, reference: Reference) -> tuple[str, ...]:
    """Return why a record may not be compared with a reference; empty if it may.

    What the reference does not state counts as different: an unknown protocol is no protocol.
    """
    reasons = []
    if record.name != reference.metric:
        reasons.append(f"{record.name} is not {reference.metric}")
    if record.extractor is not None and not record.extractor.get("publishable", False):
        reasons.append(f"measured with {record.extractor.get('name')}, a stand-in network")
    if reference.split is None or record.split != reference.split:
        reasons.append(f"other data ({reference.task})")
    if record.num != reference.num:
        theirs = "an unstated N" if reference.num is None else f"N = {reference.num:,}"
        reasons.append(f"{theirs}, ours {record.num:,}")
    if record.variant != reference.variant:
        reasons.append(f"other protocol: {reference.differs}")
    if record.comparability == "internal":
        reasons.append("ours is an internal number")
    if reference.inferred:
        reasons.append("the published value itself is inferred")
    return tuple(reasons)
