"""Markdown as a reader sees it."""

import pytest

from streams.plain import is_no_text, plain


@pytest.mark.parametrize(
    ("markdown", "shown"),
    [
        ('See [the guide](https://example.org/a_(b) "title") now.', "See the guide now."),
        ("![A lynx](lynx.png) sleeps.", "A lynx sleeps."),
        ("[Text][reference] and [1] stays", "Text and [1] stays"),
        ("**Bold**, *thin*, __loud__ and _soft_.", "Bold, thin, loud and soft."),
        ("snake_case_name and 2 * 3 * 4", "snake_case_name and 2 * 3 * 4"),
        ('<abbr title="Cross">CORS</abbr> is <b>here</b>', "CORS is here"),
        ("a < b and c > d", "a < b and c > d"),
        ("Use `kubectl get <pod>` and `**kwargs`.", "Use `kubectl get <pod>` and `**kwargs`."),
        ("- [x] done\n  and more", "done and more"),
        ("> quoted\n> twice", "quoted twice"),
        (r"1 \* 2", "1 * 2"),
        ("A heading { #anchor }", "A heading"),
        ("Xin chào, thế giới.", "Xin chào, thế giới."),
    ],
)
def test_marks_go_and_words_stay(markdown: str, shown: str) -> None:
    assert plain(markdown) == shown


@pytest.mark.parametrize(
    "text", ["- [Goals](#goals)", "  * [A b](#a-b)", "{* ../src/a.py hl[2,6:11] *}", "::: warning"]
)
def test_tables_of_contents_and_directives_are_no_text(text: str) -> None:
    assert is_no_text(text)


@pytest.mark.parametrize(
    "text", ["- [Guide](https://example.org)", "See [Goals](#goals) for more.", "{not} a directive"]
)
def test_sentences_with_links_are_text(text: str) -> None:
    assert not is_no_text(text)
