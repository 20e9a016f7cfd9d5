"""The WordPiece tokenizer of all-MiniLM-L6-v2, and a fast way to count with it."""

import re
from collections.abc import Sequence
from functools import cache

from tokenizers import Tokenizer

from infra.embedding.minilm_weights import model_folder

MAX_TOKENS = 254
"""What the model reads of a text, [CLS] and [SEP] not counted."""

# 11 MB of words.
MAX_CACHED_WORDS = 65_536
# Where BERT's pre-tokenizer splits: around every punctuation mark, the underscore among them. Combining accents stay
# with
# their letter: the tokenizer drops them.
_PIECE = re.compile(r"[^\W_]+(?:[\u0300-\u036f]+[^\W_]*)*|[^\w\s]|_")
# Control and format characters: the tokenizer drops them and joins what is on either side.
_DROPPED = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufffd]")
# Limits of this model's WordPiece: a longer word is unknown; its longest token.
_MAX_WORD_CHARS = 100
_LONGEST_TOKEN_CHARS = 18
# Longer "words" are base64, minified code and the like: rarely seen twice, and they would fill the cache with bytes.
MAX_CACHED_CHARS = 64


@cache
def shared_tokenizer() -> Tokenizer:
    """One per process (7 MB); thread-safe, since it is never changed after this."""
    tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    # The file asks for padding to and truncation at 128 tokens, which would cut and distort every passage.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def token_ids(texts: Sequence[str]) -> list[list[int]]:
    """Ids of each text with [CLS] and [SEP], cut to what the model reads."""
    tokenizer = shared_tokenizer()
    return [_cut(tokenizer.encode(text).ids) for text in texts]


def _cut(ids: list[int]) -> list[int]:
    return ids if len(ids) <= MAX_TOKENS + 2 else [*ids[: MAX_TOKENS + 1], ids[-1]]


class WordPieceCounter:
    """Counts tokens word by word, remembering the count of every word.

    WordPiece never joins across white space or punctuation, so the sum over words is the count of the text, wherever
    the text holds no characters that the tokenizer drops (then it tokenizes). Names of special tokens count as the
    words that they look like: more than one token, never fewer.
    """

    def __init__(self) -> None:
        self._words = _WordCounts(_PieceCounts(shared_tokenizer()))

    def count(self, text: str) -> int:
        return sum(map(self._words.__getitem__, text.split()))

    def count_exact(self, text: str) -> int:
        if _DROPPED.search(text):
            return len(shared_tokenizer().encode(text, add_special_tokens=False).ids)
        return self.count(text)


class _Bounded(dict[str, int]):
    """Text to number of tokens; starts afresh when full."""

    def remember(self, text: str, count: int) -> int:
        if len(text) <= MAX_CACHED_CHARS:
            if len(self) >= MAX_CACHED_WORDS:
                self.clear()
            self[text] = count
        return count


class _WordCounts(_Bounded):
    """Words between white space; a new one is the sum of its pieces."""

    def __init__(self, pieces: "_PieceCounts") -> None:
        super().__init__()
        self._pieces = pieces

    def __missing__(self, word: str) -> int:
        return self.remember(word, sum(map(self._pieces.__getitem__, _PIECE.findall(word))))


class _PieceCounts(_Bounded):
    """Pieces between punctuation: far fewer than words, so that a corpus of many words has most of them cached."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        self._vocabulary = frozenset(tokenizer.get_vocab())

    def __missing__(self, piece: str) -> int:
        count = self._greedy(piece.lower()) if piece.isascii() else self.tokenized(piece)
        return self.remember(piece, count)

    def tokenized(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _greedy(self, word: str) -> int:
        """WordPiece itself (Schuster and Nakajima, 2012): longest match first.

        A call of the tokenizer costs ten times.
        """
        if len(word) > _MAX_WORD_CHARS:
            return 1
        count, start, mark = 0, 0, ""
        while start < len(word):
            for end in range(min(len(word), start + _LONGEST_TOKEN_CHARS), start, -1):
                if mark + word[start:end] in self._vocabulary:
                    break
            else:
                return 1  # the whole word is [UNK]
            count, start, mark = count + 1, end, "##"
        return count
