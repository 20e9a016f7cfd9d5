"""The latest version of something: which questions ask for it, which fields hold one, and which of many it is.

English, Spanish, Portuguese, Vietnamese. Taken for such a question is only what asks for nothing else.
"""

import re

from streams.terms import FUNCTION_WORDS, fold, words

_ABOUT = r"(?P<about>[^?!]{1,60}?)"
_NEW = r"(?:latest|newest|most recent|current)(?: stable)?"
# Compared with folded questions (lower case, no diacritics), whole.
_QUESTIONS = tuple(
    re.compile(pattern.replace("ABOUT", _ABOUT).replace("NEW", _NEW))
    for pattern in (
        r"(?:(?:what|which)(?: is|'s) )?(?:the )?NEW (?:version|release)(?: number)?(?: of| for)? (?:the )?ABOUT",
        r"(?:(?:what|which)(?: is|'s) )?(?:the )?NEW ABOUT (?:version|release)",
        r"ABOUT NEW (?:version|release)",
        r"(?:(?:cual|que) es )?(?:la )?(?:ultima|nueva|mas reciente|mas nueva|actual) version(?: estable)? del? ABOUT",
        r"(?:(?:cual|que) es )?(?:la )?version (?:mas reciente|mas nueva|actual) del? ABOUT",
        r"(?:qual e )?(?:a )?(?:ultima|nova|mais recente|atual) versao(?: estavel)? d[eoa] ABOUT",
        r"(?:qual e )?(?:a )?versao (?:mais recente|mais nova|atual) d[eoa] ABOUT",
        r"phien ban moi nhat (?:cua )?ABOUT(?: la (?:gi|bao nhieu))?",
    )
)
_MAX_NAME_WORDS = 6
# Names may have these; any other word of this kind says that something else is asked.
_IN_NAMES = frozenset("of and for on the a an de del la el los las do da dos das e y os aos as".split())  # noqa: SIM905

# A number alone is one where the field says so: "140". Digits are few enough for ``int`` to take them.
_VERSION = re.compile(r"v?\d{1,9}(?:(?:\.\d{1,9})+(?P<suffix>[-+. ]?[A-Za-z][\w.+-]*|[-+]\w[\w.+-]*)?)?")
_UNFINISHED = re.compile(
    r"(?:^|[\W\d_])(?:a|alpha|b|beta|rc|m|milestone|pre|preview|dev|snapshot|nightly|canary)(?:\W|\d|$)"
)
_SAYS = re.compile(
    r"\b(?:latest|newest|current|ultima|mais recente|mas reciente|moi nhat)\b[^.;:!?]{0,60}?\b(?:is|es|e|la)\b"
    r"[^.;:!?]{0,20}?\d"
)
_BRANCH = re.compile(r"(?:^\(?v?|[-_.])\d")
_KEYS = frozenset({"version", "release", "latest"})
_OTHER_KEYS = frozenset({"date", "command", "policy", "link", "url", "table", "label", "count", "column"})


def latest_version_of(question: str) -> str | None:
    """What it asks for the newest version of; None: it asks for something else, or for that of a branch it names."""
    folded = " ".join(fold(question).strip(" ¿?.!").split())
    for pattern in _QUESTIONS:
        if match := pattern.fullmatch(folded):
            return match["about"] if _is_name(match["about"]) else None
    return None


def holds_version(key: str, value: str) -> bool:
    """Whether a field by its name and its value is the version of something."""
    named = set(words(key.replace("_", " ")))
    return bool(named & _KEYS) and not named & _OTHER_KEYS and _VERSION.fullmatch(_bare(value)) is not None


def says_latest_version(sentence: str) -> bool:
    """Whether a sentence says which version is the newest: "The latest version is 3.24.28"."""
    return _SAYS.search(fold(sentence)) is not None


def version_order(value: str) -> tuple[bool, tuple[int, ...]]:
    """By which versions are compared: finished ones behind all others, then by their numbers from left to right."""
    bare = _bare(value)
    match = _VERSION.match(bare)
    suffix = (match["suffix"] or "") if match else ""
    return not _UNFINISHED.search(suffix.lower()), tuple(int(n) for n in re.findall(r"\d{1,9}", bare))


def _bare(value: str) -> str:
    return value.strip().strip("\"'").strip()


def _is_branch(word: str) -> bool:
    """3.9, v3, r418-windows, kindle-8; but Log4j and K3s are names."""
    return _BRANCH.search(word) is not None or sum(character.isdigit() for character in word) > 1


def _is_name(text: str) -> bool:
    found = text.split()
    return (
        0 < len(found) <= _MAX_NAME_WORDS
        and not any(_is_branch(word) for word in found)
        and not any(word in FUNCTION_WORDS and word not in _IN_NAMES for word in found)
    )
