"""Cutting passages into quotable pieces."""

import pytest

from streams.sentences import sentences


def texts(passage: str) -> list[str]:
    return [sentence.text for sentence in sentences(passage)]


@pytest.mark.parametrize(
    ("passage", "expected"),
    [
        ("One ends here. Two begins.", ["One ends here.", "Two begins."]),
        (
            "Dr. Smith met J. Doe in the U.S. in 1990. It rained.",
            ["Dr. Smith met J. Doe in the U.S. in 1990.", "It rained."],
        ),
        ("Version 3.5.1 is out! Get it.", ["Version 3.5.1 is out!", "Get it."]),
        ('"Really?" he asked. She nodded.', ['"Really?" he asked.', "She nodded."]),
        ("¿Cuándo fue? En 1990. La Sra. Díaz lo vio.", ["¿Cuándo fue?", "En 1990.", "La Sra. Díaz lo vio."]),
        ("TP. Hồ Chí Minh rất lớn. Năm 1990 thì khác.", ["TP. Hồ Chí Minh rất lớn.", "Năm 1990 thì khác."]),
        ("これは文です。次の文です。", ["これは文です。", "次の文です。"]),
        ("A line that\nreads on. Next.", ["A line that\nreads on.", "Next."]),
    ],
)
def test_sentences_end_where_a_reader_would_say_so(passage: str, expected: list[str]) -> None:
    assert texts(passage) == expected


def test_list_items_stand_for_themselves_and_keep_their_continuation_lines() -> None:
    assert texts("Needs:\n- Java 17\n  or newer\n- Python\n") == ["Needs:", "- Java 17\n  or newer", "- Python"]


def test_yaml_lines_are_fields_with_bare_values() -> None:
    found = sentences('-   releaseCycle: "10.7"\n    eol: 2025-05-01 # soon\n    link: https://example.org/a\n')
    assert [(field.kind, field.key, field.value) for field in found] == [
        ("field", "releaseCycle", "10.7"),
        ("field", "eol", "2025-05-01"),
        ("field", "link", "https://example.org/a"),
    ]


def test_table_rows_are_pieces_and_their_rules_are_not() -> None:
    found = sentences("| Version | Ends |\n|---|---|\n| 3.2 | 2025-01-01 |\n")
    assert [(row.kind, row.text) for row in found] == [
        ("header", "| Version | Ends |"),
        ("row", "| 3.2 | 2025-01-01 |"),
    ]


def test_a_table_whose_head_is_in_another_passage_has_rows_only() -> None:
    assert [row.kind for row in sentences("| 3.2 | 2025-01-01 |\n| 3.1 | 2024-01-01 |\n")] == ["row", "row"]


def test_lines_of_a_shell_are_commands_and_other_code_is_a_block() -> None:
    text = "Start it:\n\n```console\n$ leat up\n$ leat status\n```\n\n```python\nimport leat\n\nleat.up()\n```\nDone.\n"
    assert [(piece.kind, piece.text) for piece in sentences(text)] == [
        ("sentence", "Start it:"),
        ("command", "$ leat up"),
        ("command", "$ leat status"),
        ("block", "import leat\n\nleat.up()"),
        ("sentence", "Done."),
    ]


def test_comments_and_link_definitions_are_not_text() -> None:
    text = "of a template. -->\nOne.\n<!-- Two.\nThree. -->\nFour.\n\n[limits]: https://example.org/limits\n<!-- torn"
    assert texts(text) == ["One.", "Four."]


def test_prose_with_a_colon_is_not_a_field() -> None:
    assert sentences("Note: this is prose.\nIt goes on and on here.\nAnd on it goes.")[0].kind == "sentence"


def test_offsets_fit_the_passage() -> None:
    passage = "  Olá, mundo. É só isso!\n\n- um\n- dois: três\n\nkey: value\n"
    for sentence in sentences(passage):
        assert passage[sentence.start : sentence.end] == sentence.text


def test_a_run_without_marks_is_cut_at_white_space() -> None:
    pieces = sentences("word " * 500)
    assert max(len(piece.text) for piece in pieces) <= 600
    assert sum(piece.text.count("word") for piece in pieces) == 500
