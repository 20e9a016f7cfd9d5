"""Text to weighted terms."""

import pytest

from infra.sparse import DERIVED_WEIGHT, make_sparse_encoder
from streams.model import SparseVector

ENCODER = make_sparse_encoder()


def shared(question: str, passage: str) -> float:
    """How much of the question's weight the passage has."""
    terms = dict(zip(*_parts(ENCODER.encode_query(question)), strict=True))
    found = set(ENCODER.encode_passages([passage])[0].indices)
    return sum(weight for term, weight in terms.items() if term in found)


def _parts(vector: SparseVector) -> tuple[list[int], list[float]]:
    return list(vector.indices), list(vector.values)


@pytest.mark.parametrize(
    ("question", "passage"),
    [
        ("10.7.2", "fixed in v10.7.2."),
        ("10.7", "the 10.7.2 release"),
        ("CVE-2024-1234", "(see cve-2024-1234)"),
        ("snake_case", "`snake_case`"),
        ("camelCase", "**camelCase**"),
        ("well known", "a well-known fact"),
        ("well-known", "what is well known"),
        ("Straße", "strasse"),
        ("ﬁle", "file"),
        ("e\u0301te\u0301", "été"),
        ("日本", "日本語のテスト"),
        ("กรุงเทพ", "กรุงเทพมหานคร"),
        ("हिन्दी", "यह हिन्दी है"),
        ("/api/v1/search", "GET /api/v1/search"),
    ],
)
def test_a_question_finds_the_passage_in_its_own_spelling(question: str, passage: str) -> None:
    assert shared(question, passage) >= 1.0


@pytest.mark.parametrize(
    ("question", "passage"),
    [("acao", "uma ação"), ("tieng viet", "tiếng Việt"), ("duong", "đường")],
)
def test_a_question_without_diacritics_finds_words_with_them(question: str, passage: str) -> None:
    assert shared(question, passage) >= 1.0


def test_a_word_with_diacritics_hardly_counts_where_they_differ() -> None:
    assert 0 < shared("ação", "acao") == pytest.approx(DERIVED_WEIGHT)


@pytest.mark.parametrize(
    ("question", "passage"), [("parse", "parseHttpHeader"), ("http", "parse_http_header"), ("2024", "CVE-2024-1234")]
)
def test_parts_of_identifiers_are_found(question: str, passage: str) -> None:
    assert shared(question, passage) == 1.0


def test_term_ids_never_change() -> None:
    # They are in every stored point: another hash needs a new generation.
    assert ENCODER.encode_query("log 10.7") == SparseVector(
        [28842542, 1470389090, 3069926109, 270666298], [1.0, 1.0, DERIVED_WEIGHT, DERIVED_WEIGHT]
    )


def test_repeated_words_saturate_and_long_passages_weigh_less() -> None:
    once, twice = (ENCODER.encode_passages([text])[0].values[0] for text in ("bread", "bread bread"))
    assert once < twice < 2 * once
    long = ENCODER.encode_passages(["bread " + "filler " * 300])[0]
    assert long.values[0] < once


def test_indices_are_distinct_and_fit_32_bits() -> None:
    (vector,) = ENCODER.encode_passages(["A a ação Ação 10.7 10 v10.7 x_y x-y X_Y \ud800 💡 \u0301"])
    assert len(set(vector.indices)) == len(vector.indices) == len(vector.values)
    assert all(0 <= index < 2**32 for index in vector.indices)


@pytest.mark.parametrize("text", ["", " \n", "— … !", "💡"])
def test_a_text_without_words_has_no_terms(text: str) -> None:
    (vector,) = ENCODER.encode_passages([text])
    assert not vector.indices
    assert not ENCODER.encode_query(text).indices
