"""The words of a question, and where a text has them."""

from streams.duplicates import without_near_duplicates
from streams.rerank import look_up, overlaps
from streams.terms import Question, fold


def found(question: str, text: str) -> set[str]:
    asked = Question(question)
    return {asked.terms[term] for term in asked.found_in(text)}


def test_function_words_carry_no_meaning() -> None:
    assert Question("What is the capital of the country?").terms == ("capita", "countr")
    assert Question("¿Cuál es la capital del país?").terms == ("capita", "pai")
    assert Question("Thủ đô của nước là gì?").terms == ("thu", "do", "nuoc")


def test_inflections_are_found() -> None:
    assert found("Who discovered cities?", "The discovery of a city: discoverer, cities") == {"discov", "citie"}


def test_a_version_is_not_its_neighbour() -> None:
    assert found("latest of 10.7", "10.70 and 10.7.2 and 110.7") == set()
    assert found("latest of 10.7", "Version v10.7, released") == {"10.7"}


def test_diacritics_and_case_do_not_matter() -> None:
    assert found("AÇÃO", "acao") == {"acao"}
    assert found("duong", "Đường") == {"duong"}
    assert fold("ĐÃ") == "da"


def test_a_name_in_camel_case_is_one_word() -> None:
    assert found("latest GitLab release", "gitlab") == {"gitlab"}


def test_an_abbreviation_is_found_for_its_words() -> None:
    assert found("When does it reach end of life?", "eol: 2025-05-01") == {"end", "life"}


def test_scripts_without_spaces_are_compared_character_by_character() -> None:
    assert found("東京", "東京都") == {"東", "京"}


def test_a_question_without_words_finds_nothing() -> None:
    question = Question("???")
    assert question.terms == ()
    assert overlaps(question, [look_up(question, "", "text")])[0].score == 0.0


def test_words_that_stand_together_weigh_more_than_scattered_ones() -> None:
    question = Question("maximum record size")
    filler = "filler " * 40
    together, scattered = overlaps(
        question,
        [
            look_up(question, "", f"the maximum record size is one megabyte {filler}"),
            look_up(question, "", f"a maximum {filler} the record {filler} has a size"),
        ],
    )
    assert together.coverage == scattered.coverage
    assert together.score > scattered.score


def test_headings_count_as_near_everything() -> None:
    question = Question("latest release of Mattermost 10.7")
    right, wrong = overlaps(
        question,
        [
            look_up(question, "Mattermost releases 10.7", 'latest: "10.7.2"'),
            look_up(question, "Grafana releases 10.6", 'latest: "10.6.1"'),
        ],
    )
    assert right.together > wrong.together


def test_near_duplicates_are_shown_once() -> None:
    text = "The quick brown fox jumps over the lazy dog and runs away into the dark forest behind the old mill. " * 2
    shown = without_near_duplicates([text, text.upper(), "Something else entirely."], str, limit=5)
    assert shown == [text, "Something else entirely."]


def test_texts_that_differ_in_a_number_are_not_duplicates() -> None:
    texts = [f"Support for this long and otherwise identical sentence ends in {year}." for year in (2025, 2026)]
    assert without_near_duplicates(texts, str, limit=5) == texts


def test_no_more_than_the_limit_is_kept() -> None:
    assert without_near_duplicates(["one", "two", "three"], str, limit=2) == ["one", "two"]


def test_a_mistyped_word_is_read_as_one_that_the_texts_have() -> None:
    question = Question("reindx a colection of porto")
    texts = ["Reindex the collection.", "A port is a number, it's one."]
    assert question.found_in(texts[0]) == frozenset()
    assert question.forgive({0, 1, 2}, texts)
    assert {question.terms[term] for term in question.found_in(texts[0])} == {"reindx", "colect"}


def test_another_word_and_another_version_are_not_typing_errors() -> None:
    question = Question("France 10.71 cat")
    assert not question.forgive({0, 1, 2}, ["The frame of 10.7 was cut."])
