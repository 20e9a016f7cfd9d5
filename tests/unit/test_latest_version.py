"""Questions for the latest version of something, and which of many versions that is."""

import pytest

from streams.confidence import evidence
from streams.extract import extract
from streams.latest_version import holds_version, latest_version_of, version_order
from tests.unit.answers import a_passage, a_retrieval


@pytest.mark.parametrize(
    "question",
    [
        "What is the latest version of Otter?",
        "latest version of otter",
        "otter latest version",
        "What's the newest Redis release?",
        "Which is the newest release of Ruby on Rails?",
        "What is the latest stable version of Node.js?",
        "latest version of Apache Log4j",
        "current version of Google Container-Optimized OS (COS)",
        "¿Cuál es la última versión de Otter?",
        "cual es la version mas reciente de otter",
        "Qual é a versão mais recente do Otter?",
        "Phiên bản mới nhất của Otter là gì?",
    ],
)
def test_it_asks_for_the_latest_version_and_nothing_else(question: str) -> None:
    assert latest_version_of(question)


@pytest.mark.parametrize(
    "question",
    [
        "What is the latest version of Otter 3.9?",
        "What is the latest release of NVIDIA Driver r418-windows?",
        "What is the latest release of Amazon Kindle oasis-9?",
        "What did the press release say about the current CEO?",
        "Which lock should we release in the current transaction?",
        "Which version does Leat actually use?",
        "What license does the latest release of Kafka have?",
        "Who wrote the current version of the handbook?",
        "In the current version, how do I reset my password?",
        "Which Java version does the latest Kafka need?",
        "What does the current version of the travel policy say about overtime?",
    ],
)
def test_it_asks_for_something_else(question: str) -> None:
    assert latest_version_of(question) is None


@pytest.mark.parametrize(
    ("key", "value", "is_one"),
    [
        ("latest", '"10.7.2"', True),
        ("latest", "5.5 U3k", True),
        ("releaseCycle", '"26"', True),
        ("current_version", "v3", True),
        ("latestReleaseDate", "2025-05-01", False),
        ("versionCommand", "3", False),
        ("weight", "10", False),
        ("port", "8080", False),
        ("effective release", "12 May", False),
        ("latest", "9" * 5_000, False),
    ],
)
def test_a_field_holds_a_version_by_its_name_and_its_value(key: str, value: str, is_one: bool) -> None:
    assert holds_version(key, value) is is_one


def test_versions_are_in_order_of_their_numbers_and_unfinished_ones_come_before_all_others() -> None:
    mixed = ["3.10.0", "4.0.0-beta.2", '"17.0.4075.5 CU8"', "3.9.13", "3.11.0-rc1", "3.10.0.1"]
    in_order = ["3.11.0-rc1", "4.0.0-beta.2", "3.9.13", "3.10.0", "3.10.0.1", '"17.0.4075.5 CU8"']
    assert sorted(mixed, key=version_order) == in_order


def test_a_sentence_that_says_it_is_not_replaced_by_any_number() -> None:
    said = "The latest version of Otter is 3.24.28."
    fields = "weight: 10\nport: 8080\nversion: 1\n"
    passages = (a_passage(1, said, title="Otter"), a_passage(2, fields, title="Otter"))
    [quote] = extract("What is the latest version of Otter?", passages).quotes
    assert quote.shown == said


def test_the_order_of_passages_does_not_change_how_sure_an_answer_is() -> None:
    one, other = a_passage(1, "latest: 3.2", score=0.7), a_passage(2, "latest: 3.1", score=0.4)
    found = extract("latest version of about", (one, other))
    assert evidence(a_retrieval(one, other), found) == evidence(a_retrieval(other, one), found)


def test_of_a_branch_with_a_name_only_that_one_counts() -> None:
    text = '- releaseCycle: "2019"\n  latest: "15.2.1748"\n- releaseCycle: "subscription"\n  latest: "15.2.0"\n'
    [quote] = extract(
        "What is the latest version of Exchange subscription?", (a_passage(1, text, title="Exchange"),)
    ).quotes
    assert "15.2.0" in quote.shown
