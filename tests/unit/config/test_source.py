"""Another source in a recipe, as a deployment's parameter gives it."""

from pathlib import Path

import pytest

from svd.config.ingest import FolderSource, ListSource, S3Source
from svd.config.load import load_params
from svd.config.source import with_source
from svd.errors import ConfigError

RECIPE = (Path(__file__).parents[3] / "params.yaml").read_text()


def test_each_kind_of_place_is_the_recipes_only_source(tmp_path: Path) -> None:
    (tmp_path / "films.txt").write_text("s3://bucket/a.mp4\n")
    for place, kind in (
        (str(tmp_path), FolderSource),
        (str(tmp_path / "films.txt"), ListSource),
        ("s3://bucket/raw", S3Source),
    ):
        file = tmp_path / "params.yaml"
        file.write_text(with_source(RECIPE, place, "CC-BY-4.0"))
        (source,) = load_params(file).ingest.sources
        assert isinstance(source, kind)
        assert source.licence == "CC-BY-4.0"
        file.unlink()


def test_all_else_of_the_recipe_stays(tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text(RECIPE)
    (tmp_path / "new.yaml").write_text(with_source(RECIPE, "s3://bucket", "CC0-1.0"))
    old, new = (load_params(tmp_path / name).model_dump() for name in ("old.yaml", "new.yaml"))
    assert old["ingest"].pop("sources") != new["ingest"].pop("sources")
    assert old == new


def test_a_place_that_is_not_there_or_has_no_licence_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is nothing at"):
        with_source(RECIPE, str(tmp_path / "missing"), "CC0-1.0")
    with pytest.raises(ConfigError, match="needs source_licence"):
        with_source(RECIPE, "s3://bucket", " ")
