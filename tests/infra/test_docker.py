"""The Dockerfile keeps the rules that hadolint checks and that matter here."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "infra" / "docker" / "Dockerfile").read_text()
LINES = [
    line
    for line in TEXT.replace("\\\n", " ").splitlines()
    if line.strip() and not line.startswith("#")
]


def instructions(name: str) -> list[str]:
    return [line.split(maxsplit=1)[1] for line in LINES if line.split()[0] == name]


def stages() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in LINES:
        if line.startswith("FROM "):
            found[line.split()[-1]] = []
        list(found.values())[-1].append(line)
    return found


def test_base_images_have_a_full_version() -> None:
    names = {line.split(" AS ")[-1] for line in instructions("FROM")}
    for line in instructions("FROM"):
        image = line.split()[0]
        assert image in names or re.search(r":\d+\.\d+\.\d+", image), image


def test_both_images_run_as_an_ordinary_user() -> None:
    images = stages()
    assert {"train", "curate"} <= set(images)
    for name in ("train", "curate"):
        users = [line.split()[1] for line in images[name] if line.startswith("USER ")]
        assert users == ["svd"]


def test_packages_are_pinned_and_leave_no_cache() -> None:
    runs = instructions("RUN")
    for run in runs:
        for part in re.split(r"&&|;", run):
            if "pip install" in part:
                assert "--no-cache" in part
                assert "==" in part or "--constraints constraints.txt" in part
            if "apt-get install" in part:
                assert "--no-install-recommends" in part
                assert "/var/lib/apt/lists" in run


def test_what_is_copied_is_there() -> None:
    for copy in instructions("COPY"):
        for source in copy.split()[:-1]:
            assert (ROOT / source).exists(), source


def test_nothing_is_fetched_by_address() -> None:
    assert not re.search(r"https?://|curl |wget |ADD ", "\n".join(LINES))
