"""Cut a stretch of text into pieces that are read whole: lines, sentences, words. Pieces touch; nothing is lost."""

import re

# Behind a full stop, question or exclamation mark (with closing quotes and brackets) and white space; behind the marks
# of Chinese and Japanese without any; at line ends. An abbreviation costs a cut at most.
_SENTENCE_END = re.compile(r"[.!?…][\"'”’»)\]]*(?=\s)\s+|[。！？｡．]+[」』”’）]*\s*|\n\s*")
_LINE_END = re.compile(r"\n")
_WORD_END = re.compile(r"\s+")


def split_lines(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Lines, the last break left out."""
    return _between(text, start, end, _LINE_END)


def split_sentences(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Sentences of many languages; lines where there are none."""
    return _between(text, start, end, _SENTENCE_END)


def split_words(text: str, start: int, end: int, *, max_chars: int) -> list[tuple[int, int]]:
    """Runs of whole words of at most ``max_chars`` characters; longer words are cut to that length."""
    pieces: list[tuple[int, int]] = []
    at = start
    while at < end:
        behind = min(at + max_chars, end)
        if behind < end and not text[behind].isspace():
            cut = max(text.rfind(" ", at, behind), text.rfind("\n", at, behind), text.rfind("\t", at, behind))
            behind = cut + 1 if cut > at else behind
        if not text[at:behind].isspace() or not pieces:
            pieces.append((at, behind))
        else:
            pieces[-1] = (pieces[-1][0], behind)
        at = behind
    return pieces


def _between(text: str, start: int, end: int, boundary: re.Pattern[str]) -> list[tuple[int, int]]:
    pieces: list[tuple[int, int]] = []
    at = start
    for match in boundary.finditer(text, start, end):
        if match.start() > at:
            pieces.append((at, match.end()))
            at = match.end()
    if at < end:
        if text[at:end].isspace() and pieces:
            pieces[-1] = (pieces[-1][0], end)
        else:
            pieces.append((at, end))
    return pieces
