"""What kind of thing a question asks for, and whether a piece of text has one.

English, Spanish, Portuguese, Vietnamese. A hint, never a verdict: a sentence of the
wrong kind loses a little against one of the right kind.
"""

import re
from collections.abc import Callable
from enum import StrEnum

from streams.terms import fold


class AnswerType(StrEnum):
    DATE = "date"
    NUMBER = "number"
    NAME = "name"
    """A person, a place, an organisation: whatever is written with a capital."""
    VERSION = "version"
    ANY = "any"


# Compared with folded questions (lower case, no diacritics), the first that matches decides.
_QUESTIONS: tuple[tuple[AnswerType, re.Pattern[str]], ...] = (
    (
        AnswerType.DATE,
        re.compile(
            r"\b(?:when|until when|(?:what|which) (?:year|date|day|month|century|decade)|how old|cuando"
            r"|(?:que|cual) (?:fue |es )?(?:el |la )?(?:ano|fecha|siglo|dia|mes)|quando"
            r"|(?:que|qual) (?:foi |e )?(?:o |a )?(?:ano|data|seculo|dia|mes)"
            r"|khi nao|(?:nam|ngay|thang|the ky) nao|bao gio|thoi gian nao)\b"
        ),
    ),
    (
        AnswerType.NUMBER,
        re.compile(
            r"\b(?:how (?:many|much|long|far|big|large|tall|high|fast|often|wide|deep)"
            r"|what (?:percentage|percent|number|size|age|distance|proportion|fraction)|cuant[oa]s?|quant[oa]s?"
            r"|(?:que|qual) (?:a |o )?(?:porcentaje|numero|cantidad|porcentagem|quantidade)|bao nhieu|may|bao lau"
            r"|bao xa)\b"
        ),
    ),
    (
        AnswerType.VERSION,
        re.compile(
            r"\b(?:(?:what|which)\b.*\b(?:version|release)|version|versao|phien ban"
            r"|(?:latest|newest|current) release)\b"
        ),
    ),
    (
        AnswerType.NAME,
        re.compile(
            r"\b(?:who|whom|whose|where|(?:what|which) (?:person|player|actor|city|country|state|place|company)"
            r"|quien(?:es)?|donde|quem|onde|ai|o dau|noi nao)\b"
        ),
    ),
)

_MONTHS = (
    "january|february|march|april|may|june|july|august|september|october|november|december|enero|febrero|marzo|abril"
    "|mayo|junio|julio|agosto|septiembre|octubre|noviembre|diciembre|janeiro|fevereiro|marco|maio|junho|julho|setembro"
    "|outubro|novembro|dezembro|thang|century|centuries|siglo|seculo"
)
_DATE = re.compile(r"\b(?:1\d{3}|20\d\d|\d{1,2}/\d{1,2}/\d{2,4}|the ky|nam \d+|" + _MONTHS + r")")
_WHOLE_DATE = re.compile(r"\d{4}-\d{2}(?:-\d{2})?(?:T[\d:.Z+]+)?")
_NUMBER = re.compile(
    r"\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|dozen|hundreds?|thousands?|millions?|billions?"
    r"|half|third|quarter|uno|dos|tres|cuatro|cinco|seis|siete|ocho|nueve|diez|mil|millones|dois|duas|quatro|sete|oito|dez"
    r"|milhoes|mot|hai|ba|bon|sau|bay|tam|chin|muoi|tram|nghin|trieu)\b"
)
_VERSION = re.compile(r"(?<![\w.-])v?\d+(?:\.\d+)+[\w.-]*|\bv\d+\b")
# A capital that does not begin the sentence.
_CAPITAL = re.compile(r"(?<=[^\W_][\s,(\"'“‘])[^\W\da-z_][^\W\d_]+|[^\W\da-z_]\w+\s+[^\W\da-z_]\w+")


def answer_type(question: str) -> AnswerType:
    """What the question asks for; ``ANY`` when it does not say."""
    folded = fold(question)
    return next((kind for kind, pattern in _QUESTIONS if pattern.search(folded)), AnswerType.ANY)


_DEFINITION = re.compile(
    r"(?:what|who)(?:\s+is|\s+are|'s)\s+(?:an?\s+|the\s+)?(?P<en>[\w .+#-]{2,40}?)"
    r"|(?:que|quien|cual)\s+(?:es|son)\s+(?:una?\s+|el\s+|la\s+)?(?P<es>[\w .+#-]{2,40}?)"
    r"|(?:o que|quem|qual)\s+(?:e|sao)\s+(?:uma?\s+|o\s+|a\s+)?(?P<pt>[\w .+#-]{2,40}?)"
    r"|(?P<vi>[\w .+#-]{2,40}?)\s+la\s+(?:gi|ai)"
)


_HOW_TO = re.compile(
    r"\b(?:how (?:do|can|could|should|would|to)|commands?|como (?:se |puedo |puede |hago |fazer |faco |posso )"
    r"|lam (?:sao|the nao|cach nao)|cach)\b"
)


def asks_for_command(question: str) -> bool:
    """Whether it asks how to do something, so that a line to type may answer it."""
    return _HOW_TO.search(fold(question)) is not None


def definition_of(question: str) -> Callable[[str], bool] | None:
    """For "What is X?", whether a sentence says what X is. None: the question asks for something else.

    X is one or two words; with more ("the capital of France"), the question asks for a property of something.
    """
    match = _DEFINITION.fullmatch(fold(question).strip(" ¿?.!"))
    about = "" if match is None else next(group for group in match.groups() if group).strip()
    if not about or len(about.split()) > 2:
        return None
    says = re.compile(
        rf"(?:^|\W){re.escape(about)}\b[^.:;!?]{{0,60}}?\b(?:is|are|refers|means|stands for|es|son|e|sao|la)\b"
    )
    return lambda sentence: says.search(fold(sentence)[:200]) is not None


def holds(kind: AnswerType, text: str) -> bool:
    """Whether a sentence has something of the kind."""
    if kind is AnswerType.DATE:
        return bool(_DATE.search(fold(text)))
    if kind is AnswerType.NUMBER:
        return bool(_NUMBER.search(fold(text)))
    if kind is AnswerType.VERSION:
        return bool(_VERSION.search(text))
    return kind is AnswerType.ANY or bool(_CAPITAL.search(text))


def is_of(kind: AnswerType, value: str) -> bool:
    """Whether a field's whole value is something of the kind. A date is no version."""
    date = bool(_WHOLE_DATE.fullmatch(value.strip()))
    if kind is AnswerType.DATE:
        return date
    if kind is AnswerType.ANY:
        return True
    return not date and (kind is AnswerType.NAME or any(character.isdigit() for character in value))
