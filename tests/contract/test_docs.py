"""The page that maps the paper to the code names files and tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "paper-to-code.md"
FILE = re.compile(r"`((?:svd|tests|recipes|benchmarks|flows)/[\w./@-]+)`")


def test_every_file_that_the_page_names_is_there():
    named = set(
        re.findall(r"`((?:svd|tests|recipes|benchmarks|flows)/[\w./@-]+)`", PAGE.read_text())
    )
    assert len(named) > 30
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def test_every_test_that_the_page_names_is_there():
    for file, test in re.findall(r"`(tests/[\w./]+\.py)::(\w+)`", PAGE.read_text()):
        assert f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"
