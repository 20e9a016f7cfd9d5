"""Cutting a passage into the smallest pieces that can be quoted: sentences, list items, table rows, ``key: value``
lines, commands."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

# Words before a full stop that do not end a sentence, in the languages we are asked in; compared in lower case.
_ABBREVIATIONS = frozenset(
    """mr mrs ms dr prof st jr sr vs etc e.g i.e eg ie cf al approx dept est fig figs eq no nos vol pp p ed eds inc
    ltd co corp gen col lt sgt capt rev hon gov sen rep pres u.s u.k u.s.a a.m p.m d.c b.c a.d ph.d m.d jan feb mar
    apr jun jul aug sep sept oct nov dec sra srta dra sres ud uds pág págs art núm cap tel av ee uu ee.uu aprox máx
    mín s.a a.c d.c exc ex tp ths ts gs pgs""".split()  # noqa: SIM905 - a list of words reads best as words
)

_BREAK = re.compile(r"(?P<mark>[.!?…]+|[。！？])(?P<close>[\"'”’»)\]*_]*(?:\[\d+\])*)(?P<gap>\s+|(?<=[。！？])|$)")
_LAST_WORD = re.compile(r"(\S+)$")
_LIST_ITEM = re.compile(r"^\s*(?:[-*+•]|\d{1,3}[.)])\s+")
_TABLE_ROW = re.compile(r"^\s*\|.*\|\s*$")
_TABLE_RULE = re.compile(r"^[\s|:\-+=]+$")
_KEY_VALUE = re.compile(r"^(?P<indent>\s*(?:-\s+)?)(?P<key>[A-Za-z_][\w .\-]{0,40}?)\s*:(?:\s+(?P<value>.+?)\s*|\s*)$")
_VISIBLE = re.compile(r"[^\n]")
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
# A passage may begin inside a comment: then there is an end without a beginning.
_COMMENT_END = re.compile(r"\A(?:(?!<!--).)*?-->", re.DOTALL)
_REFERENCE = re.compile(r"^\s*\[[^\]\n]+\]:\s+\S+")
_HEADING = re.compile(r"^#{1,6}\s+")
_FENCE = re.compile(r"^\s*(?:```|~~~|---\s*$|\+\+\+\s*$)")
_CODE_FENCE = re.compile(r"^\s*(?:>\s?)?(?P<mark>`{3,}|~{3,})\s*(?P<language>[\w+.-]*)[^`~]*$")
# Whose lines stand for themselves; of other languages a line alone says nothing.
_SHELLS = frozenset({"", "sh", "bash", "shell", "console", "zsh", "text", "txt", "cmd", "powershell", "terminal"})

# A run of text without any mark longer than this (a log, minified code) is cut at line ends or white space.
MAX_SENTENCE_CHARS = 600


@dataclass(frozen=True, slots=True)
class Sentence:
    """A quotable piece of a passage."""

    start: int
    """Code points into the passage's text."""
    end: int
    text: str
    kind: str = "sentence"
    """``sentence``, ``item``, ``heading``, ``field``; a table's ``header`` and ``row``; ``command``: a line of a
    shell's code block; ``block``: a whole one in another language."""
    key: str | None = None
    """Of a field."""
    value: str | None = None


def sentences(text: str) -> list[Sentence]:
    """The quotable pieces of a passage, in order, without overlap; only white space and rules lie between them."""
    found: list[Sentence] = []
    for start, end, kind in _regions(_without_comments(text)):
        if kind == "prose":
            found += _prose(text, start, end)
        else:
            found.append(_line(text, start, end, kind))
    return found


def _without_comments(text: str) -> str:
    """Blanks in their place, so that all offsets stay."""
    if "-->" not in text and "<!--" not in text:
        return text
    return _COMMENT.sub(_blanks, _COMMENT_END.sub(_blanks, text))


def _blanks(match: re.Match[str]) -> str:
    return _VISIBLE.sub(" ", match.group())


def _regions(text: str) -> Iterator[tuple[int, int, str]]:
    """Lines that stand for themselves, and runs of lines that read on as prose."""
    structured = _looks_like_fields(text)
    fences = {} if structured else _fenced(text)
    run_start: int | None = None
    position = 0
    block_until = 0
    for line in text.splitlines(keepends=True):
        start, end = position, position + len(line)
        position = end
        if start < block_until:
            continue
        block = fences.get(start)
        if block is not None and block.until > end:
            if run_start is not None:
                yield run_start, start, "prose"
                run_start = None
            block_until = block.until
            yield from block.regions(text, end)
            continue
        kind = _kind_of_line(line, structured)
        if kind == "row" and _TABLE_RULE.match(text[end:].partition("\n")[0] or "x"):
            kind = "header"
        if kind == "prose":
            run_start = start if run_start is None else run_start
            continue
        if kind == "item" and not structured:
            # A list item reads on over its continuation lines, so it opens a new run of prose.
            if run_start is not None:
                yield run_start, start, "prose"
            run_start = start
            continue
        if run_start is not None:
            yield run_start, start, "prose"
            run_start = None
        if kind != "blank":
            yield start, end, kind
    if run_start is not None:
        yield run_start, len(text), "prose"


@dataclass(frozen=True, slots=True)
class _CodeBlock:
    language: str
    until: int
    """Behind the closing fence."""
    closed_at: int
    """Before it."""

    def regions(self, text: str, start: int) -> Iterator[tuple[int, int, str]]:
        """What is between the fences, from the line behind the opening one."""
        if self.language.lower() not in _SHELLS:
            if text[start : self.closed_at].strip():
                yield start, self.closed_at, "block"
            return
        for line in text[start : self.closed_at].splitlines(keepends=True):
            if line.strip():
                yield start, start + len(line), "command"
            start += len(line)


def _fenced(text: str) -> dict[int, _CodeBlock]:
    """Code blocks by where their opening fence stands. One that is cut off reaches to the end of the passage."""
    blocks: dict[int, _CodeBlock] = {}
    opened: tuple[int, str, str] | None = None
    position = 0
    for line in text.splitlines(keepends=True):
        start, position = position, position + len(line)
        match = _CODE_FENCE.match(line)
        if match is None:
            continue
        if opened is None:
            opened = (start, match["mark"], match["language"])
        elif match["mark"].startswith(opened[1]) and not match["language"]:
            blocks[opened[0]] = _CodeBlock(opened[2], position, start)
            opened = None
    if opened is not None and opened[2]:
        blocks[opened[0]] = _CodeBlock(opened[2], position, position)
    return blocks


def _looks_like_fields(text: str) -> bool:
    lines = [line for line in text.splitlines() if line.strip() and not _FENCE.match(line)]
    fields = sum(1 for line in lines if _KEY_VALUE.match(line) or line.lstrip().startswith("#"))
    return bool(lines) and fields >= 2 and fields >= 0.6 * len(lines)


def _kind_of_line(line: str, structured: bool) -> str:
    if not line.strip() or _FENCE.match(line) or _TABLE_RULE.match(line) or _REFERENCE.match(line):
        return "blank"
    if _TABLE_ROW.match(line):
        return "row"
    if structured and _KEY_VALUE.match(line):
        return "field"
    if _HEADING.match(line):
        return "heading"
    if _LIST_ITEM.match(line):
        return "item"
    return "prose"


def _line(text: str, start: int, end: int, kind: str) -> Sentence:
    start, end = _trim(text, start, end)
    line = text[start:end]
    if kind != "field":
        return Sentence(start, end, line, kind)
    match = _KEY_VALUE.match(line)
    if match is None:
        return Sentence(start, end, line, "item")
    return Sentence(start, end, line, kind, match["key"].strip(), _bare(match["value"]))


def _bare(value: str | None) -> str | None:
    """A YAML scalar without its quotes and its comment."""
    if value is None:
        return None
    quoted = re.match(r"^([\"'])(.*?)\1\s*(?:#.*)?$", value)
    if quoted:
        return quoted[2]
    return re.sub(r"\s+#.*$", "", value)


def _prose(text: str, start: int, end: int) -> Iterator[Sentence]:
    begin = start
    for match in _BREAK.finditer(text, start, end):
        if not _ends_sentence(text, begin, match, end):
            continue
        yield from _pieces(text, begin, match.end("close"))
        begin = match.end()
    yield from _pieces(text, begin, end)


def _pieces(text: str, start: int, end: int) -> Iterator[Sentence]:
    start, end = _trim(text, start, end)
    while end - start > MAX_SENTENCE_CHARS:
        cut = max(text.rfind("\n", start, start + MAX_SENTENCE_CHARS), start)
        if cut == start:
            cut = max(text.rfind(" ", start, start + MAX_SENTENCE_CHARS), start)
        if cut == start:
            cut = start + MAX_SENTENCE_CHARS
        left, right = _trim(text, start, cut)
        yield Sentence(left, right, text[left:right])
        start, end = _trim(text, cut, end)
    if start < end:
        kind = "item" if _LIST_ITEM.match(text[start:end]) else "sentence"
        yield Sentence(start, end, text[start:end], kind)


def _ends_sentence(text: str, begin: int, match: re.Match[str], end: int) -> bool:
    if match.end() >= end:
        return True
    following = text[match.end()]
    if match["mark"] != ".":
        return not following.islower()
    if following.islower():
        return False
    word = _LAST_WORD.search(text[begin : match.start()])
    if word is None:
        return False
    last = word[1].strip("([\"'“‘«").lower()
    # "J. Smith", "1. First": an initial or a list number, unless the sentence is as short as that.
    single_initial = len(last) == 1 and last.isalpha() and last not in {"i"}
    list_number = last.isdigit() and len(last) <= 2 and not text[begin : match.start()].strip(last).strip()
    return not (last in _ABBREVIATIONS or single_initial or list_number)


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end
