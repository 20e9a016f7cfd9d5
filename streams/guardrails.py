"""Guardrails: what a question and an answer are checked for, and what is done about it.

A guardrail finds spans of a text. It reports them, or it acts: a question is not answered, in an answer the span is
masked. Which there are, and which of them act, stands in one file (``infra/guardrails.toml``, or the one that
``LEAT_GUARDRAILS_FILE`` names). Instructions inside documents and a model's output are dealt with where prompts are
built and output is cleaned (``prompt``, ``sanitise``), whatever the file says.
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from streams.language import language_of
from streams.prompt import has_injection_marks

Span = tuple[int, int]
"""Start and end in code points."""
Finder = Callable[[str], Iterable[Span]]

MASK = "█████"
# An acting guardrail holds an answer back until a sentence ends, since what it looks for may come in pieces. What is
# longer without an end is let go.
MAX_HELD_CHARS = 500
_END = re.compile(r"\n|[.!?。]\s")


class Mode(StrEnum):
    """What a guardrail does with what it finds."""

    OFF = "off"
    REPORT = "report"
    """A dry run: counted, named in ``guardrails_triggered``, nothing else."""
    ENFORCE = "enforce"


class Place(StrEnum):
    QUESTION = "question"
    ANSWER = "answer"


@dataclass(frozen=True, slots=True)
class Guardrail:
    name: str
    mode: Mode
    places: frozenset[Place]
    find: Finder


@dataclass(frozen=True, slots=True)
class Screening:
    """What was found in a question."""

    triggered: tuple[str, ...] = ()
    blocked_by: str | None = None


@dataclass(frozen=True, slots=True)
class Guardrails:
    """All guardrails of an installation, in the order of the file."""

    guardrails: tuple[Guardrail, ...] = ()
    fingerprint: str = ""
    """Changes with the file: an answer that passed other guardrails is another answer."""

    def screen_question(self, question: str, *, wanted: bool = True) -> Screening:
        """``wanted`` False leaves out those that only report; what is enforced is enforced for everybody."""
        found = [guard for guard in self._at(Place.QUESTION, wanted) if any(True for _ in guard.find(question))]
        blocking = next((guard.name for guard in found if guard.mode is Mode.ENFORCE), None)
        return Screening(tuple(_triggered(guard, Place.QUESTION) for guard in found), blocking)

    def answer_filter(self, *, wanted: bool = True) -> "AnswerFilter":
        """For the pieces of one answer."""
        return AnswerFilter(self._at(Place.ANSWER, wanted))

    def _at(self, place: Place, wanted: bool) -> list[Guardrail]:
        modes = (Mode.ENFORCE, Mode.REPORT) if wanted else (Mode.ENFORCE,)
        return [guard for guard in self.guardrails if place in guard.places and guard.mode in modes]


class AnswerFilter:
    """Feed it the pieces of an answer, pass on what it returns; ``finish`` gives what was held back."""

    def __init__(self, guardrails: list[Guardrail]) -> None:
        self._guardrails = guardrails
        self._acting = [guard for guard in guardrails if guard.mode is Mode.ENFORCE]
        self._held = ""
        self.text = ""
        """All that was passed on."""
        self._found: dict[str, None] = {}

    @property
    def triggered(self) -> tuple[str, ...]:
        """Complete after ``finish``."""
        return tuple(self._found)

    def feed(self, piece: str) -> str:
        if not self._acting:
            return self._pass_on(piece)
        self._held += piece
        end = max((match.end() for match in _END.finditer(self._held)), default=0)
        if not end and len(self._held) > MAX_HELD_CHARS:
            end = len(self._held)
        ready, self._held = self._held[:end], self._held[end:]
        return self._pass_on(self._masked(ready))

    def finish(self) -> str:
        ready, self._held = self._held, ""
        last = self._pass_on(self._masked(ready))
        for guard in self._guardrails:
            if guard.mode is Mode.REPORT and any(True for _ in guard.find(self.text)):
                self._found[_triggered(guard, Place.ANSWER)] = None
        return last

    def _masked(self, text: str) -> str:
        for guard in self._acting:
            spans = sorted(guard.find(text))
            if spans:
                self._found[_triggered(guard, Place.ANSWER)] = None
                text = _without(text, spans)
        return text

    def _pass_on(self, text: str) -> str:
        self.text += text
        return text


def length_over(max_chars: int) -> Finder:
    return lambda text: [(max_chars, len(text))] if len(text) > max_chars else []


def injection_marks(text: str) -> Iterable[Span]:
    """All of a text that addresses a model instead of a reader."""
    return [(0, len(text))] if has_injection_marks(text) else []


def fingerprint_of(configuration: str) -> str:
    return hashlib.sha256(configuration.encode()).hexdigest()[:16]


_BLOCKED = {
    "en": "This question is not answered: the guardrail “{name}” holds it back.",
    "es": "Esta pregunta no se responde: la retiene la protección «{name}».",
    "pt": "Esta pergunta não é respondida: a proteção “{name}” a retém.",
    "vi": "Câu hỏi này không được trả lời: bị quy tắc bảo vệ “{name}” giữ lại.",
}


def refusal(question: str, guardrail: str) -> str:
    """What a blocked question is answered with, in its language."""
    return _BLOCKED[language_of(question)].format(name=guardrail)


def _triggered(guard: Guardrail, place: Place) -> str:
    return f"{guard.name}-in-{place}"


def _without(text: str, spans: Iterable[Span]) -> str:
    kept, position = [], 0
    for start, end in spans:
        if end > position:
            kept += [text[position : max(start, position)], MASK]
            position = end
    return "".join((*kept, text[position:]))
