"""The WordPiece tokenizer of all-MiniLM-L6-v2, and a fast way to count with it."""

from collections.abc import Sequence
from functools import cache

from tokenizers import Tokenizer

from infra.embedding.minilm_weights import model_folder

MAX_TOKENS = 254
"""What the model reads of a text, [CLS] and [SEP] not counted."""

# 11 MB of words.
MAX_CACHED_WORDS = 65_536
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

    WordPiece never joins across white space, so the sum over words is the count of the text, but for control
    characters that the tokenizer drops and that white space of Python's which it does not know.
    """

    def __init__(self) -> None:
        self._words = _WordCounts(shared_tokenizer())

    def count(self, text: str) -> int:
        return sum(map(self._words.__getitem__, text.split()))

    def count_exact(self, text: str) -> int:
        return len(shared_tokenizer().encode(text, add_special_tokens=False).ids)


class _WordCounts(dict[str, int]):
    """Word to number of tokens; starts afresh when full."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer

    def __missing__(self, word: str) -> int:
        count = len(self._tokenizer.encode(word, add_special_tokens=False).ids)
        if len(word) <= MAX_CACHED_CHARS:
            if len(self) >= MAX_CACHED_WORDS:
                self.clear()
            self[word] = count
        return count
