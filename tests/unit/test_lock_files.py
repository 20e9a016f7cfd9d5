"""What pyproject.toml declares is what the locks install, and no lock says where from."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=;~! ]", requirement, maxsplit=1)[0].lower() for requirement in requirements}


def locked(*files: str) -> set[str]:
    return {
        match[1]
        for file in files
        for match in re.finditer(r"^([a-z0-9][a-z0-9._-]*)==", (ROOT / file).read_text(), re.M)
    }


def test_every_declared_dependency_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert names(project["dependencies"]) <= locked("requirements.lock"), "run: make lock"
    assert names(project["optional-dependencies"]["dev"]) <= locked("requirements.lock", "requirements-dev.lock")


@pytest.mark.parametrize("file", sorted(path.name for path in ROOT.glob("requirements*.lock")))
def test_locks_pin_by_hash_and_name_no_package_index(file: str) -> None:
    text = (ROOT / file).read_text()
    assert "--hash=sha256:" in text
    assert not re.search(r"https?://|--index-url|--extra-index-url|--find-links", text)
