"""A model's output as it may reach a reader: citations that exist, plain text, no foreign links, images or HTML.

Works on a stream: a piece is held back only while it may be the beginning of something that must not pass.
"""

import re
from collections.abc import Callable, Collection

# Longest thing that is recognised as one; what is longer is let through as the text that it is.
MAX_HELD_CHARS = 300

_CITATION = re.compile(r"\[\s*(\d{1,3}(?:\s*[,;]\s*\d{1,3})*)\s*\]")
_IMAGE = re.compile(r"!\[([^\]\n]*)\]\([^)\n]*\)")
_LINK = re.compile(r"\[([^\]\n]*)\]\(([^)\n]*)\)")
_TAG = re.compile(r"<!--.*?-->|</?[A-Za-z][^<>]*>", re.DOTALL)
# With a scheme, or what a reader's program would take for an address without one. Programs find ``http://`` inside a
# word too.
_URL = re.compile(
    r"(?:(?:https?|ftp)://|\b(?:https?|ftp|data|javascript|file|mailto):|\bwww\.|(?<![\w:/])//[\w-]+\.)[^\s<>\"')\]]+",
    re.IGNORECASE,
)
_TEMPLATE_MARK = re.compile(r"<\|[^|<>\n]{1,40}\|>")
# The beginning of any of the above that may be completed by what comes next.
_OPEN = re.compile(
    r"(?:!?\[[^\]\n]*(?:\](?:\([^)\n]*)?)?|<[A-Za-z/!|][^<>]*|<|!"
    r"|(?:(?:https?|ftp):|\b(?:data|javascript|file|mailto):|\bwww\.|(?<![\w:/])//?)[^\s<>\"')\]]*"
    r"|h|ht|htt|http|https|f|ft|ftp"
    r"|\b(?:d|da|dat|data|j|ja|jav|java|javas|javasc|javascr|javascri|javascrip|javascript"
    r"|fi|fil|file|m|ma|mai|mail|mailt|mailto|w|ww|www))$",
    re.IGNORECASE,
)
# What must not be joined with what comes behind something that is taken out.
_MAY_GO_ON = re.compile(
    r"(?:[<:/.]|h|ht|htt|http|https|f|ft|ftp|\b(?:d|da|dat|data|j|ja|jav|java|javas|javasc|javascr|javascri|javascrip"
    r"|javascript|fi|fil|file|m|ma|mai|mail|mailt|mailto|w|ww|www))$",
    re.IGNORECASE,
)
_TAIL_CHARS = 12


class Sanitiser:
    """Feed it pieces, take what may be shown; ``finish`` gives what was held back.

    The output does not depend on where the pieces were cut.
    """

    def __init__(self, *, citations: Collection[int], sources: str = "") -> None:
        """``citations``: numbers that exist. ``sources``: the text of the passages; links that stand there may stay."""
        self._citations = frozenset(citations)
        self._sources = sources
        self._held = ""
        self.removed: set[str] = set()
        """What had to go: ``citation``, ``link``, ``image``, ``html``."""
        self.cited: set[int] = set()
        self._tail = ""

    def feed(self, piece: str) -> str:
        self._held += piece
        opened = _OPEN.search(self._held)
        while opened and len(self._held) - opened.start() > MAX_HELD_CHARS:
            # Too long to be one: but something else may have begun inside it.
            opened = _OPEN.search(self._held, opened.start() + 1)
        end = opened.start() if opened else len(self._held)
        ready, self._held = self._held[:end], self._held[end:]
        return self._clean(ready)

    def finish(self) -> str:
        ready, self._held = self._held, ""
        return self._clean(ready)

    def _clean(self, text: str) -> str:
        text = _TEMPLATE_MARK.sub(self._drop("html"), text)
        text = _IMAGE.sub(self._drop("image"), text)
        text = _LINK.sub(self._link, text)
        text = _TAG.sub(self._drop("html"), text)
        text = _URL.sub(self._url, text)
        text = _CITATION.sub(self._citation, text)
        self._tail = (self._tail + text)[-_TAIL_CHARS:]
        return text

    def _drop(self, what: str) -> Callable[[re.Match[str]], str]:
        def drop(match: re.Match[str]) -> str:
            self.removed.add(what)
            return self._gap(match)

        return drop

    def _gap(self, match: re.Match[str]) -> str:
        """What stands where something was taken out: what was apart must not grow together to something new, as
        ``<<b>script>`` would.
        """
        before = self._tail + match.string[: match.start()]
        return " " if _MAY_GO_ON.search(before[-_TAIL_CHARS:]) else ""

    def _link(self, match: re.Match[str]) -> str:
        # The words stay; a number in brackets before a parenthesis is a citation all the same.
        if match[1].strip().isdigit():
            return f"[{match[1].strip()}] ({match[2]})"
        if match[2] and match[2] in self._sources:
            return f"{match[1]} ({match[2]})"
        self.removed.add("link")
        return match[1]

    def _url(self, match: re.Match[str]) -> str:
        url = match.group().rstrip(".,;:!?")
        if url.lower().startswith(("http:", "https:")) and url in self._sources:
            return match.group()
        self.removed.add("link")
        return match.group()[len(url) :]

    def _citation(self, match: re.Match[str]) -> str:
        numbers = [int(number) for number in re.findall(r"\d+", match[1])]
        known = [number for number in dict.fromkeys(numbers) if number in self._citations]
        if len(known) < len(set(numbers)):
            self.removed.add("citation")
        self.cited.update(known)
        return "".join(f"[{number}]" for number in known) or self._gap(match)
