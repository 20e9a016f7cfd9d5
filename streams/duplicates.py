"""Passages that say the same in nearly the same words: readers want them once."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from streams.terms import is_identifier, words

Item = TypeVar("Item")

# Share of common word triples from which two passages are the same. Passages of one section overlap by a tenth.
SAME_SHARE = 0.9


def without_near_duplicates(items: Sequence[Item], text_of: Callable[[Item], str], *, limit: int) -> list[Item]:
    """The first ``limit`` items in order, leaving out those that nearly repeat an earlier one.

    Numbers, versions and dates must be equal for two texts to be the same: "ends 2025" does not repeat "ends 2026".
    """
    kept: list[Item] = []
    seen: list[tuple[frozenset[str], frozenset[tuple[str, ...]]]] = []
    for item in items:
        if len(kept) == limit:
            break
        fingerprint = _fingerprint(text_of(item))
        if any(_same(fingerprint, other) for other in seen):
            continue
        seen.append(fingerprint)
        kept.append(item)
    return kept


def _fingerprint(text: str) -> tuple[frozenset[str], frozenset[tuple[str, ...]]]:
    found = words(text)
    identifiers = frozenset(filter(is_identifier, frozenset(found)))
    triples = frozenset(zip(found, found[1:], found[2:], strict=False))
    return identifiers, triples or frozenset([tuple(found)])


def _same(
    left: tuple[frozenset[str], frozenset[tuple[str, ...]]], right: tuple[frozenset[str], frozenset[tuple[str, ...]]]
) -> bool:
    if left[0] != right[0]:
        return False
    return len(left[1] & right[1]) >= SAME_SHARE * len(left[1] | right[1])
