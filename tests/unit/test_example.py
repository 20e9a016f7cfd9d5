"""The command that `leat up` gives to paste."""

from pathlib import Path

import pytest

from infra.local.example import OWN_QUESTION, example_command, example_question


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("# Tea\n\nGreen tea.\n", "What is Tea?"),
        ("---\ntitle: 'On-call rota'\n---\nText\n", "What is On-call rota?"),
        ("no title\n", OWN_QUESTION),
        ("# `rm -rf $HOME`\n", OWN_QUESTION),
    ],
)
def test_the_question_is_about_a_document_of_the_folder(tmp_path: Path, text: str, question: str) -> None:
    (tmp_path / "a.md").write_text(text)
    assert example_question(tmp_path) == question


def test_a_title_of_few_words_makes_the_better_question(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# Answering: conversations, guardrails, the cache\n")
    (tmp_path / "b.md").write_text("# Backups\n")
    assert example_question(tmp_path) == "What is Backups?"


def test_this_repositorys_guides_have_a_question_of_their_own() -> None:
    assert example_question(Path(__file__).parents[2] / "docs") == OWN_QUESTION


def test_the_command_names_a_data_directory_that_is_not_the_default(tmp_path: Path) -> None:
    assert f" --data {tmp_path} " in example_command(None, tmp_path)
    assert "--data" not in example_command(None, Path(".leat/data").absolute())
