from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from svd.commands import report, weights
from svd.errors import IntegrityError
from svd.evaluation.extractors.catalogue import CATALOGUE


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    (tmp_path / "params.yaml").write_text("seed: 1\n")
    monkeypatch.chdir(tmp_path)
    made = typer.Typer()
    report.add_commands(made)
    weights.add_commands(made)
    return made


def test_report_of_an_empty_checkout_is_a_page(app: typer.Typer, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["report"])
    assert done.exit_code == 0, done.output
    assert "reports/index.html" in done.output
    assert (tmp_path / "reports" / "index.html").is_file()


def test_weights_are_listed_with_licence_and_state(app: typer.Typer) -> None:
    done = CliRunner().invoke(app, ["weights", "list"], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    for name in CATALOGUE:
        assert name in done.output
    assert "Apache-2.0" in done.output
    assert "not fetched" in done.output


def test_verify_says_what_is_not_here_and_fails_on_damage(app: typer.Typer, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["weights", "verify"])
    assert done.exit_code == 0
    assert done.output.count("not fetched") == len(CATALOGUE)
    pinned = CATALOGUE["lpips-alex"]
    path = tmp_path / f".svd/cache/weights/lpips-alex-{pinned.content_sha256[:16]}.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"damaged")
    done = CliRunner().invoke(app, ["weights", "verify"])
    assert isinstance(done.exception, IntegrityError)
    assert "lpips-alex" in str(done.exception)


def test_unknown_weights_are_refused_by_name(app: typer.Typer) -> None:
    done = CliRunner().invoke(app, ["weights", "fetch", "nothing"])
    assert "no weights are named 'nothing'" in str(done.exception)
