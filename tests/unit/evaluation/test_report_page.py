import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from svd.evaluation.report.governance import RegisteredVersion
from svd.evaluation.report.page import read_page, write_report
from svd.runtime.workspace import Workspace
from svd.types.artifact import ModelRecord

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)  # that of the fixture full_page
SECTIONS = ("samples", "metrics", "release", "timeline", "data", "curation", "training", "lineage")


class _Outline(HTMLParser):
    """Collects ids, tags and the addresses a page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in {"src", "href", "poster", "srcset", "action"}:
                self.addresses.append(value or "")


def outline(path: Path) -> _Outline:
    parser = _Outline()
    parser.feed(path.read_text(encoding="utf-8"))
    return parser


def test_an_empty_checkout_gives_a_page_that_says_what_is_missing(tmp_path: Path) -> None:
    path = write_report(Workspace(tmp_path), rendered_at=NOW)
    text = path.read_text()
    found = outline(path)
    assert set(SECTIONS) <= set(found.ids)
    for name in ("ingest", "filter", "autoencoder", "pretrain-image", "evaluate", "register"):
        assert f"dvc repro {name}" in text


def test_the_page_refers_to_nothing_outside_itself(full_page: Workspace) -> None:
    found = outline(full_page.report)
    assert found.addresses
    assert all(a.startswith(("data:", "#")) or a == "" for a in found.addresses)
    text = full_page.report.read_text()
    assert not re.search(r"url\(\s*['\"]?(?!data:)", text)
    assert "default-src 'none'" in text


def test_ids_are_unique(full_page: Workspace) -> None:
    ids = outline(full_page.report).ids
    assert len(ids) == len(set(ids))


def test_names_from_the_data_cannot_become_markup(full_page: Workspace) -> None:
    text = full_page.report.read_text()
    assert "&lt;b&gt;bold &amp; sly&lt;/b&gt;" in text
    assert "<b>bold" not in text


def test_every_held_out_clip_is_shown_as_three_pictures(full_page: Workspace) -> None:
    page = read_page(full_page, versions=(), rendered_at=NOW)
    assert page.samples is not None
    assert len(page.samples.triples) == 6
    for triple in page.samples.triples:
        assert triple.condition.startswith("data:image/png")
        assert triple.sample.startswith("data:video/mp4")
        assert triple.truth.startswith("data:video/mp4")


def test_rejected_clips_carry_their_reasons_and_no_reason_is_left_out(
    full_page: Workspace,
) -> None:
    page = read_page(full_page, versions=(), rendered_at=NOW)
    assert page.curation is not None
    assert all(thumb.reasons and thumb.picture for thumb in page.curation.rejected)
    shown = {rule for thumb in page.curation.rejected for rule in thumb.rules}
    assert shown == {"motion.dis_px", "text.area", "near-duplicate"}
    assert len(page.curation.histograms) == 2


def test_lineage_ticks_every_hash_that_matches(full_page: Workspace) -> None:
    page = read_page(full_page, versions=(), rendered_at=NOW)
    assert page.lineage is not None
    checked = {link.title: link.checked for link in page.lineage.chain}
    assert checked["Latents"] is True
    assert checked["Autoencoder"] is True
    assert checked["Stage I, images"] is True
    assert checked["svd-i2v"] is True
    assert sum(row.num_heldout for row in page.lineage.rows) == 8


def test_lineage_shows_a_model_that_started_from_other_weights(fresh: Workspace) -> None:
    path = fresh.model("pretrain-video") / "model.json"
    model = ModelRecord.parse(path.read_text(), origin="")
    path.write_text(model.model_copy(update={"init_sha256": "f" * 64}).canonical_json())
    page = read_page(fresh, versions=(), rendered_at=NOW)
    assert page.lineage is not None
    broken = [link.title for link in page.lineage.chain if link.checked is False]
    assert broken == ["Stage I, images"]


def test_published_values_stand_with_the_reasons_why_not(full_page: Workspace) -> None:
    page = read_page(full_page, versions=(), rendered_at=NOW)
    assert page.metrics is not None
    published = [one for metric in page.metrics.framed for one in metric.published]
    assert published
    assert all(one.reasons for one in published)
    assert "Not comparable because" in full_page.report.read_text()


def test_gates_and_versions_are_shown(full_page: Workspace) -> None:
    text = full_page.report.read_text()
    assert "0.01 &lt; 0.05" in text
    assert "v0.1.0" in text
    assert "production" in text


def test_a_damaged_file_is_named_and_the_rest_is_shown(fresh: Workspace) -> None:
    (fresh.filtered / "report.json").write_text("{")
    path = write_report(fresh, rendered_at=NOW)
    text = path.read_text()
    assert "could not be read" in text
    assert "data/filtered/report.json" in text
    assert "CC-BY-3.0" in text


def test_media_stop_where_the_budget_ends(
    full_page: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("svd.evaluation.report.page.MEDIA_BUDGET_BYTES", 20_000)
    page = read_page(full_page, versions=(), rendered_at=NOW)
    assert page.num_left_out > 10


def test_the_page_is_the_same_bytes_each_time(full_page: Workspace) -> None:
    before = full_page.report.read_bytes()
    write_report(
        full_page, versions=[RegisteredVersion("v0.1.0", ("production",))], rendered_at=NOW
    )
    assert full_page.report.read_bytes() == before
