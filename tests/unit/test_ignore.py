"""Which entries of a watched folder are not documents."""

import pytest

from streams.ignore import IgnoreRules


@pytest.mark.parametrize(
    "path",
    [
        ".git", "a/node_modules", "notes.md~", ".notes.md.swp", "4913", "#notes.md#", ".#notes.md", "~$report.docx",
        "picture.PNG", "a/.DS_Store", ".env", ".env.production", "download.crdownload", ".gitignore", "x/.leatignore",
    ],
)  # fmt: skip
def test_temporaries_tools_secrets_and_pictures_are_left_out_by_default(path: str) -> None:
    assert IgnoreRules().ignore(path, is_directory=False)


@pytest.mark.parametrize(
    "path",
    ["notes.md", "a/b/Report.PDF", "main.py", "data.json", "README", "temp.md", "gitignore.md", "environment.txt",
     ".hidden.md", "sediment.md", "a.b.c", "été.md"],
)  # fmt: skip
def test_documents_are_not(path: str) -> None:
    assert not IgnoreRules().ignore(path, is_directory=False)


def test_patterns_hold_below_their_directory_only() -> None:
    rules = IgnoreRules().inside("drafts", ["*.txt", "/secret.md"])
    assert rules.ignore("drafts/a.txt", is_directory=False)
    assert rules.ignore("drafts/deep/a.txt", is_directory=False)
    assert rules.ignore("drafts/secret.md", is_directory=False)
    assert not rules.ignore("drafts/deep/secret.md", is_directory=False)


def test_a_deeper_directory_wins() -> None:
    rules = IgnoreRules().inside("", ["*.txt"]).inside("keep", ["!*.txt"])
    assert rules.ignore("a.txt", is_directory=False)
    assert not rules.ignore("keep/a.txt", is_directory=False)


def test_a_pattern_brings_back_what_the_defaults_leave_out() -> None:
    rules = IgnoreRules().inside("", ["!*.svg", "!.git"])
    assert not rules.ignore("diagram.svg", is_directory=False)
    assert rules.ignore(".git", is_directory=True)


def test_a_directory_pattern_does_not_match_a_file() -> None:
    rules = IgnoreRules().inside("", ["build/"])
    assert rules.ignore("build", is_directory=True)
    assert not rules.ignore("build", is_directory=False)


def test_comments_blank_lines_and_broken_patterns_do_no_harm() -> None:
    rules = IgnoreRules().inside("", ["# comment", "", "   ", "!", "/", "[", "*.log"])
    assert rules.ignore("a.log", is_directory=False)
    assert not rules.ignore("a.md", is_directory=False)
