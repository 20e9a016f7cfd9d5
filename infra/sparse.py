"""The sparse leg: text to weighted terms in any language; identifiers and versions are found whole and in parts.

No stemming and no stop words, since the language of a passage is unknown: the index's inverse document frequencies
do the work of stop words. What becomes a term:

- a word, case-folded and compatibility-composed (NFKC: ligatures, full-width forms);
- where it has diacritics, the same word without them too, so that ``acao`` finds ``ação``;
- a compound whole and in parts: ``well-known``, ``CVE-2024-1234``, ``snake_case``, ``camelCase``; ``10.7.2`` also
  as ``10.7``;
- in scripts written without spaces, every pair of neighbouring characters.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain, pairwise

from streams.model import SparseVector
from streams.ports import SparseEncoder

# Saturation of repeated terms and share of length normalisation (k1 and b of BM25): Anserini's defaults, tuned on
# passages; the better known 1.2 and 0.75 are for whole documents.
SATURATION = 0.9
LENGTH_SHARE = 0.4

# Words in an average passage. A constant, since stored points are immutable while the true average moves with every
# document: 254 tokens of the model are about 170 words, and short sections pull the average down.
# Between 75 and 200 no set of ours moves by a point.
AVERAGE_WORDS = 130

# What a question's derived term (a number inside a version, a word without its diacritics) counts beside the term as
# it was written: enough to find other spellings, too little to outrank the exact one. Higher weights cost Vietnamese,
# where words differ by their diacritics: nDCG@10 95.6 at 0.1, 94.8 at 0.5, 93.8 at 1.
DERIVED_WEIGHT = 0.1

# Distinct words, punctuation attached, whose terms are kept; then the cache starts anew. Some 250 bytes each.
CACHED_WORDS = 150_000

# Longer runs without a space are a sentence in Chinese, a URL or base64: not worth a place in the cache.
MAX_CACHED_CHARS = 64

# Combining marks and vowel signs, which ``\w`` leaves out: without them words of Hebrew, Arabic, Indic and South-East
# Asian scripts would fall apart.
_MARKS = (
    "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u0900-\u0dff\u0e31-\u0e4e\u0eb1-\u0ecd\u1000-\u109f"
    "\u17b4-\u17d3"
)
_COMPOUND = re.compile(rf"[\w{_MARKS}]+(?:[.:/@+-][\w{_MARKS}]+)*")
_PUNCTUATION = "\"'`*.,:;!?()[]{}<>|#=~“”‘’«»…—–"
_JOINTS = re.compile(r"[.:/@+_-]+")
_VERSION = re.compile(r"[vV]?\d+(?:[.-]\d+)+")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3"
    "\uf900-\ufaff\U00020000-\U0003ffff]+"
)
_DIACRITICS = re.compile("[\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670]+")
# Letters that no decomposition takes apart.
_PLAIN = str.maketrans({"đ": "d", "ø": "o", "ł": "l", "ħ": "h", "ı": "i", "æ": "ae", "œ": "oe", "ð": "d", "þ": "th"})


def make_sparse_encoder() -> SparseEncoder:
    """An encoder with an empty cache. Threads may share it."""
    return WordEncoder()


class WordEncoder:
    """BM25 weights in passages, plain weights in questions; the index multiplies with inverse document frequencies."""

    def __init__(self) -> None:
        self._term_ids = _TermIds()

    def encode_passages(self, texts: Sequence[str]) -> list[SparseVector]:
        """One vector per text, in order. A text without words has an empty one and is found by meaning only."""
        return [self._encode_passage(text) for text in texts]

    def encode_query(self, text: str) -> SparseVector:
        """Each distinct term once: as written 1, derived ``DERIVED_WEIGHT``."""
        weights: dict[int, float] = {}
        for word in text.split():
            for term, written in _terms(word):
                term_id = _term_id(term)
                weights[term_id] = max(weights.get(term_id, 0.0), 1.0 if written else DERIVED_WEIGHT)
        return SparseVector(indices=list(weights), values=list(weights.values()))

    def _encode_passage(self, text: str) -> SparseVector:
        # Split, look up, flatten and count without leaving C: this runs for every word of every document.
        words = text.split()
        frequencies = Counter(chain.from_iterable(map(self._term_ids.__getitem__, words)))
        norm = SATURATION * (1 - LENGTH_SHARE + LENGTH_SHARE * len(words) / AVERAGE_WORDS)
        weights = {count: count * (SATURATION + 1) / (count + norm) for count in set(frequencies.values())}
        return SparseVector(indices=list(frequencies), values=list(map(weights.__getitem__, frequencies.values())))


class _TermIds(dict[str, tuple[int, ...]]):
    """The term ids of a word with the punctuation around it, remembered."""

    def __missing__(self, word: str) -> tuple[int, ...]:
        bare = word.strip(_PUNCTUATION)
        # "word", "word," and "(word)" are one look-up more, not three derivations.
        again = bare != word and _is_plain(bare)
        term_ids = self[bare] if again else tuple(_term_id(term) for term, _ in _terms(word))
        if len(word) <= MAX_CACHED_CHARS:
            if len(self) >= CACHED_WORDS:
                self.clear()
            self[word] = term_ids
        return term_ids


# The parts of addresses and paths come again and again.
@lru_cache(maxsize=16_384)
def _term_id(term: str) -> int:
    """32 bits of BLAKE2b. Ids are in every stored point: they never change."""
    return int.from_bytes(hashlib.blake2b(term.encode("utf-8", "surrogatepass"), digest_size=4).digest())


def _terms(word: str) -> Iterator[tuple[str, bool]]:
    """Terms of what stands between two spaces, each with whether it is what was written (or derived from it)."""
    bare = word.strip(_PUNCTUATION)
    if _is_plain(bare):
        yield bare.lower(), True  # the common case, without a regular expression
        return
    if not word.isascii():
        word = unicodedata.normalize("NFKC", word).replace("\u00ad", "")
    for compound in _COMPOUND.findall(word):
        for term, written in _split(compound):
            folded = term.casefold()
            if folded.isascii():
                yield folded, written
            else:
                yield from _spell(folded, written)


def _is_plain(bare: str) -> bool:
    """A word whose one term is itself in lower case."""
    return bare.isascii() and bare.isalnum() and (bare[1:].islower() or bare.isupper() or bare.isdigit())


def _split(compound: str) -> Iterator[tuple[str, bool]]:
    """The compound itself and its parts.

    Of an identifier or a version the whole is what was meant; of words with a hyphen between them, the words.
    """
    if _VERSION.fullmatch(compound):
        yield from _split_version(compound.lstrip("vV"))
        return
    parts: list[str] = []
    for piece in _JOINTS.split(compound):
        if piece.islower() or piece.isdigit():
            parts.append(piece)  # no humps, as most have none
        elif piece:
            parts += filter(None, _HUMP.split(piece))
    if len(parts) < 2:
        yield compound.strip("_") or compound, True
        return
    identifier = "_" in compound or any(map(str.isdigit, compound)) or not _JOINTS.search(compound)
    yield compound, identifier
    for part in parts:
        yield part, not identifier


def _split_version(version: str) -> Iterator[tuple[str, bool]]:
    """``10.7.2``; then ``10.7``, which others call it by; then its numbers."""
    yield version, True
    numbers = re.split("[.-]", version)
    if len(numbers) > 2:
        yield version[: -len(numbers[-1]) - 1], False
    for number in numbers:
        yield number, False


def _spell(term: str, written: bool) -> Iterator[tuple[str, bool]]:
    """A term with other letters than ASCII's: itself, and without diacritics; pairs where the script has no spaces."""
    for run in _UNSPACED.findall(term):
        yield from ((left + right, written) for left, right in pairwise(run))
        if len(run) == 1:
            yield run, written
    spaced = _UNSPACED.sub("", term)
    if not spaced:
        return
    yield spaced, written
    plain = _DIACRITICS.sub("", unicodedata.normalize("NFD", spaced)).translate(_PLAIN)
    plain = unicodedata.normalize("NFC", plain)
    if plain and plain != spaced:
        yield plain, False
