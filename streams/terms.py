"""The words of a question, and where a text has them.

Words are compared folded (case, diacritics) and by their first letters: a crude stemmer that works alike for all
languages with suffixes and needs no dictionary; Vietnamese syllables are shorter than the cut and stay whole.
Versions, dates and other identifiers are equal or not: 10.7 is neither 10.70 nor 10.7.2.
"""

import difflib
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain, compress

# Letters of a word that count. Fewer merge unrelated words, more separate "published" from "publication".
STEM_CHARS = 6

# From this length on a mistyped word is still one word's: "cat" is as near to "car" as to "cut". Two words are alike
# from about one letter in nine that is wrong, missing or too many.
FORGIVEN_CHARS = 4
ALIKE = 0.86

_FUNCTION_WORDS = """
a an the of to in on at by for from with without into onto upon over under between among about as and or nor but if
than then that this these those it its he she they them his her their our your my we you i me us is are was were be
been being am do does did done has have had having will would shall should can could may might must not no so such
what which who whom whose when where why how there here also any some each both all more most other only own same very
too s t d ll re ve happened happen many much name called tell please know find give show
el la los las un una unos unas de del al en por para con sin sobre entre y e o u que qué quien quién quienes quiénes
cual cuál cuales cuáles cuando cuándo donde dónde como cómo cuanto cuánto cuantos cuántos cuanta cuánta cuantas
cuántas es son era eran fue fueron ser sido está están estaba ha han había se su sus lo le les no si más muy ya tiene
tienen os as um uma uns umas do da dos das ao aos à às em na no nas nos pelo pela pelos pelas com sem até qual quais
quando onde quem quanto quantos quanta quantas é são foi foram ser era eram está estão seu sua seus suas lhe lhes não
mais muito já tem là của và các những được trong cho với có một ở từ đến bởi về này đó khi nào ai gì đâu sao như thế
bao nhiêu bị đã sẽ đang thì mà hay hoặc ra vào lại nó họ người ta cái vì tại theo
"""

# A word, or whatever has a digit with all that is tied to it: 10.7.2, 2025-05-01, f36-5g, 1,000. Sentence marks are
# not.
# The letters in front are possessive: giving them back one by one, for every word without a digit, took most of the
# time.
_TOKEN = re.compile(r"[^\W\d_]++(?:\d[^\W_]*(?:[.,:/+\-][^\W_]+)*)?|\d[^\W_]*(?:[.,:/+\-][^\W_]+)*")
_DIGIT = re.compile(r"\d")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_MARKS = re.compile("[\u0300-\u036f]+")
_UNSPACED = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3])"
    "(?=[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3])"
)

# Distinct runs between two spaces, punctuation attached, whose words are kept; then the cache starts anew. 24 MB of
# mixed documents have some 300,000, a day's passages far fewer. Some 200 bytes each.
CACHED_RUNS = 60_000

# Longer runs are a sentence in Chinese, a URL or base64: not worth a place in the cache.
MAX_CACHED_CHARS = 64


def fold(text: str) -> str:
    """Lower case, without diacritics; đ becomes d. Other compatibility forms stay, so lengths mostly stay too."""
    lowered = text.lower()
    if lowered.isascii():
        return lowered
    return unicodedata.normalize("NFC", _MARKS.sub("", unicodedata.normalize("NFD", lowered))).replace("đ", "d")


FUNCTION_WORDS = frozenset(unicodedata.normalize("NFC", word) for word in _FUNCTION_WORDS.split())


class Question:
    """The words of a question that carry meaning, ready to be looked for."""

    def __init__(self, text: str) -> None:
        self.text = unicodedata.normalize("NFKC", text)
        self.folded = fold(self.text)
        asked = _TOKEN.findall(spaced(self.text))
        kept = [word for word in asked if word.lower() not in FUNCTION_WORDS]
        by_term = {stem(word): word for word in map(fold, reversed(kept))}
        self.terms = tuple(dict.fromkeys(stem(fold(word)) for word in kept))
        """Distinct, in the order of the question; folded and cut."""
        self.forgave = False
        self._asked = [by_term[term] for term in self.terms]
        self.pairs = frozenset((term, term + 1) for term in range(len(self.terms) - 1))
        """Neighbours in the question."""
        self._numbers: dict[str, tuple[int, ...]] = {term: (number,) for number, term in enumerate(self.terms)}
        for initials, run in _initialisms(asked):
            numbers = {number for word in run for number in self._numbers.get(stem(fold(word)), ())}
            self._numbers.setdefault(initials, tuple(sorted(numbers)))
        self.subject = frozenset(
            number for word in subject_words(self.text) for number in self._numbers.get(stem(fold(word)), ())
        )
        """Places of its names and identifiers: what it is about."""

    def forgive(self, missing: Collection[int], texts: Iterable[str]) -> bool:
        """Read words that none of the texts has (by their places) as ones of theirs that are spelt almost alike: people
        mistype. Returns whether there is one.
        """
        asked = {number: self._asked[number] for number in missing}
        asked = {number: word for number, word in asked.items() if len(word) >= FORGIVEN_CHARS and word.isalpha()}
        if not asked:
            return False
        known = set(chain.from_iterable(map(words, texts)))
        known |= {word[:-1] for word in known if word.endswith("s") and word != "s"}
        for number, word in asked.items():
            alike = [other for other in known if other[0] == word[0] and abs(len(other) - len(word)) <= 1]
            for meant in difflib.get_close_matches(word, alike, n=1, cutoff=ALIKE):
                self._numbers.setdefault(stem(meant), (number,))
                self.forgave = True
        return self.forgave

    @property
    def identifiers(self) -> frozenset[int]:
        """Places of the terms that are equal or not, never similar."""
        return frozenset(number for number, term in enumerate(self.terms) if is_identifier(term))

    def occurrences(self, text: str) -> list[tuple[int, int]]:
        """(ordinal of the word in the text, place of the term in ``terms``), in the order of the text."""
        # Split, look up and compare without leaving C: this runs for every word of every candidate.
        stems = chain.from_iterable(map(_STEMS.__getitem__, text.split()))
        found = list(map(self._numbers.get, stems))
        return [(ordinal, term) for ordinal, terms in compress(enumerate(found), found) for term in terms or ()]

    def found_in(self, text: str) -> frozenset[int]:
        """Which terms a text has."""
        return frozenset(term for _, term in self.occurrences(text))


def subject_words(question: str) -> list[str]:
    """Its words with a capital or a digit, in order; the first word only if it has more capitals."""
    kept = []
    for place, word in enumerate(_TOKEN.findall(question)):
        named = any(character.isupper() for character in (word if place else word[1:]))
        if (named or is_identifier(word)) and word.lower() not in FUNCTION_WORDS:
            kept.append(word)
    return kept


def function_words(question: str) -> list[str]:
    """Its words that any question might have."""
    return [word for word in _TOKEN.findall(question) if word.lower() in FUNCTION_WORDS]


def _initialisms(asked: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """How the question's runs of three to five words are abbreviated: "end of life" is eol."""
    for length in (3, 4, 5):
        for start in range(len(asked) - length + 1):
            run = asked[start : start + length]
            if all(word[0].isalpha() for word in run):
                yield fold("".join(word[0] for word in run)), run


def spaced(text: str) -> str:
    """In scripts without spaces every character becomes a word."""
    return text if text.isascii() else _UNSPACED.sub(r"\1 ", text)


def words(text: str) -> list[str]:
    """Folded words of a text, identifiers whole, words in camel case in their parts."""
    return list(chain.from_iterable(map(_WORDS.__getitem__, text.split())))


def meaningful_stems(text: str) -> frozenset[str]:
    """Stems of a text's words without function words, names in camel case whole."""
    found = _TOKEN.findall(spaced(unicodedata.normalize("NFKC", text)))
    return frozenset(stem(fold(word)) for word in found if word.lower() not in FUNCTION_WORDS)


def is_identifier(term: str) -> bool:
    """A version, number, date or code."""
    return _DIGIT.search(term) is not None


def stem(word: str) -> str:
    """What is compared of a folded word."""
    if is_identifier(word):
        return word[1:] if word[0] == "v" and word[1:2].isdigit() else word
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]
    return word[:STEM_CHARS]


class _Remembered(dict[str, tuple[str, ...]]):
    """What a function makes of a run of characters without a space: no word reaches over one.

    A tokeniser in Python takes 0.2 ms for a passage, looking its runs up a tenth of that.
    """

    def __init__(self, derive: Callable[[str], tuple[str, ...]]) -> None:
        super().__init__()
        self._derive = derive

    def __missing__(self, run: str) -> tuple[str, ...]:
        derived = self._derive(run)
        if len(run) <= MAX_CACHED_CHARS:
            if len(self) >= CACHED_RUNS:
                self.clear()
            self[run] = derived
        return derived


def _stems_of(run: str) -> tuple[str, ...]:
    return tuple(map(stem, _TOKEN.findall(fold(spaced(run)))))


def _words_of(run: str) -> tuple[str, ...]:
    return tuple(fold(part) for word in _TOKEN.findall(spaced(run)) for part in _HUMP.split(word) if part)


_STEMS = _Remembered(_stems_of)
_WORDS = _Remembered(_words_of)
