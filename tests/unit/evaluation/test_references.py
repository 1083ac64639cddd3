import pytest

from svd.evaluation.extractors.base import OFFICIAL_NAMES
from svd.evaluation.protocols.catalogue import PROTOCOLS
from svd.evaluation.references import Reference, differences, published
from svd.types.artifact import MetricRecord

PUBLISHED = Reference(
    protocol="p",
    metric="FVD",
    value=242.02,
    system="theirs",
    task="UCF-101",
    num=2048,
    variant="frechet/x/N2048",
    split="ucf101/all",
    differs="nothing",
    source="a paper",
)
OURS = MetricRecord(
    name="FVD",
    value=250.0,
    num=2048,
    paired=False,
    higher_is_better=False,
    variant="frechet/x/N2048",
    comparability="published-protocol",
    seed=1,
    dataset_fingerprint="d" * 64,
    split="ucf101/all",
    checkpoint_sha256="c" * 64,
    extractor={"name": "i3d", "publishable": True, "weights_sha256": next(iter(OFFICIAL_NAMES))},
)


def test_same_protocol_data_and_n_may_be_compared() -> None:
    assert differences(OURS, PUBLISHED) == ()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"num": 24}, "N = 2,048, ours 24"),
        ({"variant": "frechet/y/N2048"}, "other protocol"),
        ({"split": None}, "other data"),
        ({"comparability": "internal"}, "internal"),
        ({"name": "FD[tiny]"}, "is not FVD"),
        ({"extractor": {"name": "tiny", "publishable": False}}, "stand-in"),
    ],
    ids=["n", "variant", "data", "internal", "name", "stand-in"],
)
def test_any_difference_forbids_the_comparison(change: dict[str, object], reason: str) -> None:
    reasons = differences(OURS.model_copy(update=change), PUBLISHED)
    assert any(reason in one for one in reasons), reasons


@pytest.mark.parametrize("field", ["num", "variant", "split"])
def test_what_a_source_does_not_state_counts_as_different(field: str) -> None:
    assert differences(OURS, PUBLISHED.model_copy(update={field: None}))


def test_no_published_value_pins_a_split_that_ours_could_match() -> None:
    assert all(differences(OURS, reference) for reference in published())


def test_a_port_of_the_official_network_may_stand_beside_a_published_value() -> None:
    assert differences(OURS.model_copy(update={"comparability": "port"}), PUBLISHED) == ()


def test_an_inferred_value_is_compared_with_nothing() -> None:
    assert differences(OURS, PUBLISHED.model_copy(update={"inferred": True}))


def test_every_published_value_is_of_a_protocol_we_have_and_names_its_source() -> None:
    assert {one.protocol for one in published()} <= set(PROTOCOLS)
    assert all(one.source and one.differs for one in published())
