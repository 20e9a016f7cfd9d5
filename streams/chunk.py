"""Cut a parsed document into passages.

A document is a row of blocks with possible cuts between them. What fits the budget stays whole; what does not is cut at
its strongest cut (the highest heading, else the paragraph whose opening words have the lowest hash), and each side
is treated in the same way. Every decision is taken from the blocks inside the stretch in question, so an edit moves
no boundary elsewhere: it changes the passage that holds it, or makes two of it where it has outgrown the budget.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate
from zlib import crc32

from schemas.pipeline import ChunkedPassage
from streams.model import Block, ParsedDocument
from streams.ports import TokenCounter
from streams.split import split_lines, split_sentences, split_words

# Below this share of the budget an estimate is believed; above it the tokenizer counts.
_ESTIMATE_TRUSTED_SHARE = 0.9
# Short sections under one parent share a passage while they are this small together: one topic per passage embeds
# better, but a line of ten tokens embeds as noise.
_MERGED_SECTIONS_SHARE = 0.5
# Tokens of a path that may stand in front of a passage, as a share of the budget.
_MAX_PREFIX_SHARE = 0.25
# A cut is chosen by the opening of the block behind it: an edit further down leaves the choice alone.
_OPENING_CHARS = 48

# Ranks of cuts; a lower one is cut first. Levels of headings are 1 to _DEEPEST_HEADING.
_DEEPEST_HEADING = 16
_PARAGRAPH_RANK, _ITEM_RANK, _AFTER_HEADING_RANK = 20, 21, 22
_ITEM_KINDS = frozenset({"list-item", "table-row"})
_LINE_KINDS = frozenset({"code", "table", "front-matter", "table-row"})
_RANK_SHIFT = 32


def embedded_text(heading_path: Sequence[str], text: str) -> str:
    """What a model reads of a passage: the headings above it that it does not hold itself, then its text.

    It depends on the document's content alone, not on its id or metadata: a rename embeds nothing again.
    """
    prefix = " › ".join(heading for heading in heading_path if heading not in text)
    return f"{prefix}\n{text}" if prefix else text


def content_hash(heading_path: Sequence[str], text: str) -> bytes:
    """SHA-256 of what the model reads."""
    return sha256(embedded_text(heading_path, text).encode("utf-8", "surrogatepass")).digest()


def chunk(parsed: ParsedDocument, *, max_tokens: int, overlap: int, counter: TokenCounter) -> list[ChunkedPassage]:
    """Passages of a document in reading order; the same document always gives the same ones.

    ``text[start:end]`` of the document is the passage's text, and every character of a block is in a passage. What is
    embedded (``embedded_text``) has at most ``max_tokens`` tokens by ``counter.count_exact``. A larger block is cut
    between lines or sentences, then words, then characters; a passage that begins inside a block repeats up to
    ``overlap`` tokens of whole sentences before it, where they fit. Between whole blocks nothing is torn, so nothing
    is repeated: then an edit touches no neighbour.
    """
    return list(_Chunker(parsed, max_tokens, min(overlap, max_tokens // 2), counter).passages())


@dataclass(frozen=True, slots=True)
class _Row:
    """Atoms that a passage may hold several of: whole blocks, or the pieces of one large block."""

    starts: Sequence[int]
    ends: Sequence[int]
    keys: Sequence[int]
    """Rank and hash of the cut before each atom; the lowest is cut first."""
    sums: Sequence[int]
    """Tokens before each atom, by estimate; one more than atoms."""
    blocks: Sequence[Block]
    """The block of each atom."""
    depth: int = 0
    """0 for whole blocks; then lines or sentences, words, characters."""

    def size(self, first: int, behind: int) -> int:
        return self.sums[behind] - self.sums[first]


class _Chunker:
    def __init__(self, parsed: ParsedDocument, max_tokens: int, overlap: int, counter: TokenCounter) -> None:
        self._text = parsed.text
        self._blocks = parsed.blocks
        self._max = max_tokens
        self._overlap = overlap
        self._counter = counter
        self._prefix_tokens: dict[tuple[str, ...], int] = {}

    def passages(self) -> Iterator[ChunkedPassage]:
        for first, behind in _stretches(self._blocks):
            yield from self._cut(self._row_of_blocks(self._blocks[first:behind]))

    def _row_of_blocks(self, blocks: Sequence[Block]) -> _Row:
        text, count = self._text, self._counter.count
        keys = []
        after_heading = False
        for block in blocks:
            rank = _rank(block, after_heading)
            opening = text[block.start : min(block.end, block.start + _OPENING_CHARS)]
            keys.append(rank << _RANK_SHIFT | crc32(opening.encode("utf-8", "surrogatepass")))
            after_heading = block.kind == "heading"
        starts, ends = [block.start for block in blocks], [block.end for block in blocks]
        sizes = [count(text[start:end]) for start, end in zip(starts, ends, strict=True)]
        return _Row(starts, ends, keys, list(accumulate(sizes, initial=0)), blocks)

    def _cut(self, row: _Row) -> Iterator[ChunkedPassage]:
        """Cut a row until every stretch fits. A stack, not recursion: a row may have a million atoms."""
        stack = [(0, len(row.starts))]
        while stack:
            first, behind = stack.pop()
            passage = self._whole(row, first, behind)
            if passage is not None:
                yield passage
            elif behind - first == 1:
                yield from self._torn(row, first)
            else:
                at = self._strongest_cut(row, first, behind)
                stack.append((at, behind))
                stack.append((first, at))

    def _whole(self, row: _Row, first: int, behind: int) -> ChunkedPassage | None:
        """The stretch as one passage, or None where it must be cut."""
        size = row.size(first, behind)
        if size > self._max:
            return None
        if size > self._max * _MERGED_SECTIONS_SHARE and _holds_sections(row, first, behind):
            return None
        path, page = _path_of(row.blocks[first:behind]), row.blocks[first].page
        start, end = row.starts[first], row.ends[behind - 1]
        text = self._text[start:end]
        path, prefix = self._prefix(path, text)
        total = size + prefix
        if total > self._max * _ESTIMATE_TRUSTED_SHARE:
            total = self._counter.count_exact(embedded_text(path, text))
            if total > self._max:
                # One character with a long path: the path gives way, for a character cannot be cut.
                if end - start > 1:
                    return None
                path = ()
        if row.depth and first:
            start, total = self._with_overlap(row, first, path, start, end, total)
        return _passage(self._text, start, end, path, page, total)

    def _prefix(self, path: tuple[str, ...], text: str) -> tuple[tuple[str, ...], int]:
        """The path, outer headings dropped where they would crowd out the text, and its tokens."""
        limit = self._max * _MAX_PREFIX_SHARE
        while path:
            tokens = self._prefix_tokens.get(path)
            if tokens is None:
                tokens = self._prefix_tokens[path] = self._counter.count(" › ".join(path)) + 1
            if tokens <= limit:
                return path, tokens
            path = path[1:]
        return path, 0

    def _strongest_cut(self, row: _Row, first: int, behind: int) -> int:
        """Index of the atom to cut before."""
        left = first + 1
        keys = row.keys[left:behind]
        lowest = min(keys)
        if keys.count(lowest) == 1:
            return left + keys.index(lowest)
        # Repeated blocks (a table of equal lines): the one nearest to the middle, or the cuts would go n deep.
        middle = (row.sums[first] + row.sums[behind]) / 2
        return min(
            (at for at in range(left, behind) if row.keys[at] == lowest), key=lambda at: abs(row.sums[at] - middle)
        )

    def _torn(self, row: _Row, index: int) -> Iterator[ChunkedPassage]:
        """Passages of one atom that is too large: between lines or sentences, then words, then characters."""
        block = row.blocks[index]
        start, end = row.starts[index], row.ends[index]
        for depth in range(row.depth + 1, 4):
            spans = self._pieces(block, start, end, depth)
            if len(spans) > 1:
                yield from self._cut(self._row_of_pieces(block, spans, depth))
                return
        middle = (start + end) // 2
        yield from self._cut(self._row_of_pieces(block, [(start, middle), (middle, end)], 3))

    def _pieces(self, block: Block, start: int, end: int, depth: int) -> list[tuple[int, int]]:
        if depth == 1:
            return (
                split_lines(self._text, start, end)
                if block.kind in _LINE_KINDS
                else split_sentences(self._text, start, end)
            )
        # An eighth of the budget in words of a few tokens each: few enough pieces for a document that is one long line.
        return split_words(self._text, start, end, max_chars=max(1, self._max // 2 if depth == 2 else self._max // 8))

    def _row_of_pieces(self, block: Block, spans: list[tuple[int, int]], depth: int) -> _Row:
        text, count = self._text, self._counter.count
        keys = [
            crc32(text[start : min(end, start + _OPENING_CHARS)].encode("utf-8", "surrogatepass"))
            | _PARAGRAPH_RANK << _RANK_SHIFT
            for start, end in spans
        ]
        sums = list(accumulate((count(text[start:end]) for start, end in spans), initial=0))
        return _Row([s for s, _ in spans], [e for _, e in spans], keys, sums, [block] * len(spans), depth)

    def _with_overlap(
        self, row: _Row, first: int, path: tuple[str, ...], start: int, end: int, total: int
    ) -> tuple[int, int]:
        """Start and tokens with the whole pieces before ``first`` that the overlap and the budget allow."""
        at = first
        room = min(self._overlap, int(self._max * _ESTIMATE_TRUSTED_SHARE) - total)
        while at > 0 and row.size(at - 1, first) <= room:
            at -= 1
        if at == first:
            return start, total
        tokens = self._counter.count_exact(embedded_text(path, self._text[row.starts[at] : end]))
        return (row.starts[at], tokens) if tokens <= self._max else (start, total)


def _stretches(blocks: Sequence[Block]) -> Iterator[tuple[int, int]]:
    """Runs of blocks that may share passages: never across pages, top-level headings or records of the front matter."""
    first = 0
    for at in range(1, len(blocks)):
        block, before = blocks[at], blocks[at - 1]
        if (
            block.kind == "front-matter"
            or before.kind == "front-matter"
            or block.page != before.page
            or block.heading_path[:1] != before.heading_path[:1]
        ):
            yield first, at
            first = at
    if blocks:
        yield first, len(blocks)


def _holds_sections(row: _Row, first: int, behind: int) -> bool:
    """Whether a heading inside the stretch starts a section that could stand alone."""
    return behind - first > 1 and min(row.keys[first + 1 : behind]) >> _RANK_SHIFT <= _DEEPEST_HEADING


def _rank(block: Block, after_heading: bool) -> int:
    if after_heading:
        return _AFTER_HEADING_RANK
    if block.kind == "heading":
        return min(max(len(block.heading_path), 1), _DEEPEST_HEADING)
    return _ITEM_RANK if block.kind in _ITEM_KINDS else _PARAGRAPH_RANK


def _path_of(blocks: Sequence[Block]) -> tuple[str, ...]:
    """The headings that all of the blocks stand under; headings that only lead to the next one do not count."""
    first = blocks[0].heading_path
    if blocks[-1].heading_path == first and len(blocks) < 3:
        return first
    paths = {block.heading_path for block in blocks if block.kind != "heading"}
    shared, *others = paths or {block.heading_path for block in blocks}
    for path in others:
        depth = next(
            (i for i, (a, b) in enumerate(zip(shared, path, strict=False)) if a != b), min(len(shared), len(path))
        )
        shared = shared[:depth]
    return shared


def _passage(text: str, start: int, end: int, path: tuple[str, ...], page: int | None, tokens: int) -> ChunkedPassage:
    passage = text[start:end]
    return ChunkedPassage(
        content_hash=content_hash(path, passage),
        text=passage,
        heading_path=path,
        page=page,
        start=start,
        end=end,
        tokens=tokens,
    )
