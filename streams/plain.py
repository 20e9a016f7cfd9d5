"""A piece of Markdown as a reader sees it: for answers that quote it, on a page and in a terminal.

Code spans stay as they are. Links lose their addresses: an answer's own citations are the way to more, and an address
that nobody has checked has no business in an answer.
"""

import re

# All run once over a piece of some hundred characters, and none can look further back than a bracket.
_CODE = re.compile(r"(`+[^`\n]+`+)")
_IMAGE = re.compile(r"!\[([^\]\[\n]*)\]\([^()\s]*(?:\s[^()\n]*)?\)")
_LINK = re.compile(r"\[([^\]\[]*)\]\([^()\s]*(?:\([^()\s]*\)[^()\s]*)?(?:\s[^()\n]*)?\)(?:\{[^{}\n]*\})?")
_REFERENCE = re.compile(r"\[([^\]\[]+)\]\[[^\]\[]*\]")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>|<!--.*?-->", re.DOTALL)
_STRONG = re.compile(r"(\*\*|__)(?=\S)([^*_]+?)(?<=\S)\1")
_EMPHASIS = re.compile(r"(?<![\w*])\*(?=\S)([^*\n]+?)(?<=\S)\*(?![\w*])|(?<!\w)_(?=\S)([^_\n]+?)(?<=\S)_(?!\w)")
_ESCAPE = re.compile(r"\\([\\`*_{}\[\]()#+\-.!|<>])")
_QUOTED = re.compile(r"^[ \t]*>[ \t]?", re.MULTILINE)
_BULLET = re.compile(r"^\s*(?:[-*+•]\s+)+(?:\[[ xX]\]\s+)?")
# An attribute list behind a heading or a paragraph, as some site generators have them.
_ATTRIBUTES = re.compile(r"\s*\{\s*[#.:][^{}\n]*\}\s*$")
_DIRECTIVE = re.compile(r"\s*(?:\{[*%{][^\n]*[*%}]\}|:::?[^\n]*|/{3}[^\n]*)\s*")
_ANCHOR = re.compile(r"\s*\[[^\]\[]*\]\(#[^()\s]*\)\s*")


def plain(text: str) -> str:
    """Without the marks of Markdown and HTML, in one line."""
    parts = _CODE.split(_ATTRIBUTES.sub("", _BULLET.sub("", _QUOTED.sub("", text))))
    return " ".join("".join(part if place % 2 else _bare(part) for place, part in enumerate(parts)).split())


def is_no_text(text: str) -> bool:
    """An entry of a table of contents, nothing but a link into the same document; or what a site generator fills in."""
    bare = _BULLET.sub("", text)
    return _ANCHOR.fullmatch(bare) is not None or _DIRECTIVE.fullmatch(bare) is not None


def _bare(text: str) -> str:
    text = _TAG.sub("", _REFERENCE.sub(r"\1", _LINK.sub(r"\1", _IMAGE.sub(r"\1", text))))
    text = _EMPHASIS.sub(lambda match: match[1] or match[2], _STRONG.sub(r"\2", text))
    return _ESCAPE.sub(r"\1", text)
