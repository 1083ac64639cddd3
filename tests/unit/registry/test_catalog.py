"""Promotion, rollback and resolving, on real tags, beside what gto and dvc make of them."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from svd.errors import GateError
from svd.registry.catalog import Catalog
from svd.registry.git import GitTag
from svd.registry.publish import promote, roll_back
from svd.registry.tags import parse_tag, version_key
from svd.types.version import Promotion
from tests.unit.registry.registry_project import Project


def holder(project: Project, stage: str) -> str | None:
    return project.catalog.in_stage(stage)


@pytest.mark.parametrize(
    ("name", "kind", "version", "stage", "counter"),
    [
        ("svd-i2v@v0.1.10", "register", "v0.1.10", None, 0),
        ("svd-i2v@v0.1.10!", "withdraw", "v0.1.10", None, 0),
        ("svd-i2v#production#12", "assign", None, "production", 12),
        ("svd-i2v#production!#13", "unassign", None, "production", 13),
        ("svd-i2v#dev", "assign", None, "dev", 0),
    ],
)
def test_tags_are_read_by_gtos_grammar(
    name: str, kind: str, version: str | None, stage: str | None, counter: int
) -> None:
    from gto.tag import parse_name

    event = parse_tag(GitTag(name, "c", "t", 0, ""))
    assert event is not None
    assert event[1:5] == (kind, version, stage, counter)
    gto = parse_name(name)
    assert event.name == gto["name"]
    assert (gto.get("version"), gto.get("stage")) == (version, stage)
    assert gto.get("counter", 0) == counter


@pytest.mark.parametrize(
    "name", ["v1.0", "svd-i2v", "svd-i2v@0.1.0", "svd-i2v@latest", "a b@v1.0.0"]
)
def test_other_tags_are_let_be(name: str) -> None:
    assert parse_tag(GitTag(name, "c", "t", 0, "")) is None


def test_versions_are_ordered_as_numbers() -> None:
    assert sorted(["v0.1.10", "v0.1.9", "v0.2.0"], key=version_key)[0] == "v0.1.9"


def test_a_promotion_is_recorded_and_gto_agrees(released: Project) -> None:
    import gto.api

    done = promote(released.catalog, "v0.1.1", "production", approver="Ann", note="for the demo")
    assert holder(released, "production") == "v0.1.1"
    assert done.approver == "Ann"
    message = released.git("tag", "-l", "--format=%(contents)", "svd-i2v#production#4")
    assert message.startswith("svd-i2v v0.1.1: promote to production by Ann\n\nfor the demo\n")
    record = json.loads(message.partition("\nRecord: ")[2])
    assert Promotion.model_validate_json(json.dumps(record)) == done
    assert record["decision"]["passed"] is True
    (shown,) = gto.api.show(str(released.root), "svd-i2v#production")
    assert shown["version"] == "v0.1.1"


def test_resolving_takes_versions_stages_and_latest(released: Project) -> None:
    promote(released.catalog, "v0.1.0", "staging", approver="Ann")
    catalog = released.catalog
    wanted = ["v0.1.0", "staging", "svd-i2v#staging", "svd-i2v@v0.1.0"]
    assert {catalog.resolve(text) for text in wanted} == {"v0.1.0"}
    assert catalog.resolve("latest") == "v0.1.2"
    assert catalog.resolve("candidate") == "v0.1.2"
    for text in ("production", "v9.9.9", "nonsense"):
        with pytest.raises(GateError):
            catalog.resolve(text)


def test_going_back_leads_to_the_version_before_and_again_to_the_one_before_that(
    released: Project,
) -> None:
    for version in ("v0.1.0", "v0.1.1", "v0.1.2"):
        promote(released.catalog, version, "production", approver="Ann")
    assert roll_back(released.catalog, "production", approver="Bob").version == "v0.1.1"
    assert holder(released, "production") == "v0.1.1"
    promote(released.catalog, "v0.1.2", "production", approver="Ann")
    assert roll_back(released.catalog, "production", approver="Bob").version == "v0.1.1"
    assert roll_back(released.catalog, "production", approver="Bob").version == "v0.1.0"
    with pytest.raises(GateError, match="nothing to go back to"):
        roll_back(released.catalog, "production", approver="Bob")


def test_a_rollback_skips_a_withdrawn_version(released: Project) -> None:
    for version in ("v0.1.0", "v0.1.1", "v0.1.2"):
        promote(released.catalog, version, "production", approver="Ann")
    commit = released.catalog.commit("v0.1.1")
    released.git("tag", "-a", "-m", "withdrawn", "svd-i2v@v0.1.1!", commit)
    assert roll_back(released.catalog, "production", approver="Bob").version == "v0.1.0"


def test_what_gto_takes_back_is_empty_though_dvc_still_hands_it_out(released: Project) -> None:
    import dvc.api
    import gto.api

    promote(released.catalog, "v0.1.0", "production", approver="Ann")
    promote(released.catalog, "v0.1.1", "production", approver="Ann")
    time.sleep(1.1)  # gto orders by whole seconds
    gto.api.unassign(str(released.root), "svd-i2v", stage="production", version="v0.1.1")
    assert holder(released, "production") is None
    with pytest.raises(GateError, match="no version of svd-i2v is in production"):
        released.catalog.resolve("production")
    # The faults of others that the catalog is there for; when they are mended this may go.
    assert [item["version"] for item in gto.api.show(str(released.root), "svd-i2v#production")] == [
        "v0.1.0"
    ]
    shown = dvc.api.artifacts_show("svd-i2v", stage="production", repo=str(released.root))
    assert shown["rev"] == released.git("rev-parse", "svd-i2v#production!#6^{commit}")


def test_a_withdrawn_version_cannot_be_had_and_its_number_is_not_used_again(
    released: Project,
) -> None:
    import dvc.api

    promote(released.catalog, "v0.1.2", "staging", approver="Ann")
    commit = released.catalog.commit("v0.1.2")
    released.git("tag", "-a", "-m", "withdrawn", "svd-i2v@v0.1.2!", commit)
    assert released.catalog.versions == ("v0.1.0", "v0.1.1")
    assert holder(released, "staging") is None
    with pytest.raises(GateError, match=r"no version v0\.1\.2; registered: v0\.1\.0, v0\.1\.1"):
        promote(released.catalog, "v0.1.2", "production", approver="Ann")
    assert released.catalog.next_version("0.1") == "v0.1.3"
    # DVC hands it out all the same; when that is mended this may go.
    assert dvc.api.artifacts_show("svd-i2v", version="v0.1.2", repo=str(released.root))


def test_the_order_within_one_second_is_that_of_the_numbers(released: Project) -> None:
    for number, version in ((50, "v0.1.0"), (51, "v0.1.1")):
        tag = f"svd-i2v#production#{number}"
        released.git("tag", "-a", "-m", "by hand", tag, released.catalog.commit(version))
    assert holder(released, "production") == "v0.1.1"


@pytest.mark.parametrize(
    ("version", "arguments", "reason"),
    [
        ("v0.1.0", {"approver": " "}, "needs the name of who approves"),
        ("v0.1.7", {"approver": "Ann"}, "has no version v0.1.7"),
        ("v0.1.2", {"approver": "Ann"}, "holds candidate already"),
        ("v0.1.0", {"approver": "Ann", "replacing": "v0.1.1"}, "holds v0.1.2, not v0.1.1"),
        ("v0.1.0", {"approver": "Ann", "replacing": "none"}, "holds v0.1.2, not none"),
    ],
    ids=["nobody", "unknown", "same", "other-holder", "not-empty"],
)
def test_a_promotion_is_refused_with_the_reason(
    released: Project, version: str, arguments: dict[str, str], reason: str
) -> None:
    with pytest.raises(GateError, match=reason):
        promote(released.catalog, version, "candidate", **arguments)


def test_what_was_seen_must_still_be_true(released: Project) -> None:
    seen = released.catalog
    promote(released.catalog, "v0.1.0", "production", approver="Ann")
    with pytest.raises(GateError, match=r"changed meanwhile and holds v0\.1\.0 now"):
        promote(seen, "v0.1.1", "production", approver="Bob")
    assert holder(released, "production") == "v0.1.0"


def test_of_twenty_promotions_at_once_one_wins_in_each_stage(released: Project) -> None:
    seen = released.catalog
    start = threading.Barrier(20)

    def attempt(index: int) -> str:
        stage = "staging" if index % 2 else "production"
        start.wait()
        try:
            promote(seen, f"v0.1.{index % 3}", stage, approver=f"approver {index}")
        except GateError as err:
            return str(err)
        return stage

    with ThreadPoolExecutor(20) as pool:
        outcomes = list(pool.map(attempt, range(20)))
    assert sorted(o for o in outcomes if o in {"staging", "production"}) == [
        "production",
        "staging",
    ]
    assert sum("changed meanwhile" in outcome for outcome in outcomes) == 18
    events = [e for e in released.catalog.events if e.stage in {"staging", "production"}]
    assert [e.counter for e in events] == [4, 5]
    assert all(released.catalog.promotion(e) is not None for e in events)


def test_a_writer_elsewhere_cannot_be_overrun(
    released: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine pushes the next number between our look and our write."""
    before = Catalog.counter.fget(released.catalog)  # type: ignore[attr-defined]
    commit = released.catalog.commit("v0.1.0")

    def pushed(self: Catalog) -> int:
        tag = f"svd-i2v#production#{before + 1}"
        released.git("tag", "-f", "-a", "-m", "from elsewhere", tag, commit)
        return int(before)

    monkeypatch.setattr(Catalog, "counter", property(pushed))
    with pytest.raises(GateError, match="another process took number 4"):
        promote(released.catalog, "v0.1.1", "production", approver="Ann")
    monkeypatch.undo()
    assert holder(released, "production") == "v0.1.0"


def test_a_version_of_another_tool_has_no_record(released: Project) -> None:
    import gto.api

    gto.api.register(str(released.root), "svd-i2v", "HEAD", version="v9.0.0")
    assert released.catalog.versions[-1] == "v9.0.0"
    with pytest.raises(GateError, match=r"no registry/svd-i2v/v9\.0\.0\.json"):
        promote(released.catalog, "v9.0.0", "production", approver="Ann")
