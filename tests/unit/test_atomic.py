"""Files and folders appear whole or not at all."""

from pathlib import Path

import pytest

from svd.atomic import new_file, new_folder, write_text


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_it_is_complete_and_its_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with new_file(path) as partial:
        partial.write_text("whole", encoding="utf-8")
        assert not path.exists()
    assert path.read_text(encoding="utf-8") == "whole"
    assert _names(path.parent) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail() -> None:
        with new_file(path) as partial:
            partial.write_text("half", encoding="utf-8")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text(encoding="utf-8") == "old"
    assert _names(tmp_path) == ["a.txt"]


def test_a_file_that_cannot_take_its_place_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(IsADirectoryError):
        write_text(tmp_path / "a.txt", "whole")
    assert _names(tmp_path) == ["a.txt"]


def test_a_killed_write_is_gone_over(tmp_path: Path) -> None:
    (tmp_path / "a.txt.partial").write_text("what a killed process left", encoding="utf-8")
    write_text(tmp_path / "a.txt", "é")
    assert (tmp_path / "a.txt").read_bytes() == "é".encode()
    assert _names(tmp_path) == ["a.txt"]


def test_a_folder_replaces_the_old_one_as_a_whole(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    with new_folder(out) as partial:
        write_text(partial / "first", "1")
        assert not out.exists()
    with new_folder(out) as partial:
        write_text(partial / "second", "2")
        assert _names(out) == ["first"]
    assert _names(out) == ["second"]
    assert _names(out.parent) == ["out"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_folder_leaves_the_old_one_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    out = tmp_path / "out"
    write_text(out / "old", "1")

    def fail() -> None:
        with new_folder(out) as partial:
            write_text(partial / "new", "2")
            raise error

    with pytest.raises(error):
        fail()
    assert _names(out) == ["old"]
    assert _names(tmp_path) == ["out"]


def test_a_killed_folder_is_built_anew(tmp_path: Path) -> None:
    write_text(tmp_path / "out.partial" / "left", "1")
    with new_folder(tmp_path / "out") as partial:
        assert _names(partial) == []
        write_text(partial / "new", "2")
    assert _names(tmp_path / "out") == ["new"]
    assert _names(tmp_path) == ["out"]
