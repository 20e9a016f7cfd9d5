"""HTML to text with structure, by selectolax (lexbor)."""

from collections.abc import Iterator

from selectolax.lexbor import LexborHTMLParser, LexborNode

from infra.parsing.assembly import Assembly
from streams.model import ParsedDocument

_SKIPPED = frozenset(
    {"script", "style", "noscript", "template", "head", "svg", "iframe", "object", "-comment", "_comment"}
)
_BLOCKS = frozenset(
    """
    address article aside blockquote body caption dd details div dl dt fieldset figcaption figure footer form
    h1 h2 h3 h4 h5 h6 header hr html legend li main nav ol option p pre section select summary table tbody td
    tfoot th thead tr ul
    """.split()  # noqa: SIM905
)
_KINDS = {"li": "list-item", "tr": "table-row", "pre": "code"}
_HEADINGS = {f"h{level}": level for level in range(1, 7)}


def parse_html(data: str | bytes) -> ParsedDocument:
    """Visible text of a page in reading order; one block per paragraph, heading, list item, table row."""
    tree = LexborHTMLParser(data)
    assembly = Assembly()
    if tree.body is not None:
        for kind, text in _runs(tree.body):
            if kind in _HEADINGS:
                assembly.heading(text, _HEADINGS[kind])
            else:
                assembly.add(text, kind=_KINDS.get(kind, "paragraph"), keep_lines=kind == "pre")
    title = tree.css_first("head > title")
    named = " ".join(title.text().split()) if title is not None else None
    return assembly.document(title=named, metadata=_metadata(tree), content_type="text/html")


def _metadata(tree: LexborHTMLParser) -> dict[str, str]:
    """``description``, ``author``, ``keywords`` and the language, where the page names them."""
    found: dict[str, str] = {}
    for node in tree.css("head > meta[name][content]"):
        name = (node.attributes.get("name") or "").lower()
        if name in ("description", "author", "keywords"):
            found[name] = node.attributes.get("content") or ""
    language = tree.root.attributes.get("lang") if tree.root is not None else None
    return found | ({"language": language} if language else {})


def _runs(body: LexborNode) -> Iterator[tuple[str, str]]:
    """(tag of the block, its text) per run of inline content. No recursion: hostile pages nest deeply."""
    pieces: list[str] = []
    owner = "p"
    # (node, None) enters a node; (None, tag) leaves a block and goes back to its parent's tag.
    stack: list[tuple[LexborNode | None, str]] = [(body, "p")]
    while stack:
        node, outer = stack.pop()
        if node is None:
            if pieces:
                yield owner, "".join(pieces)
                pieces = []
            owner = outer
            continue
        tag = node.tag or ""
        if tag == "-text":
            pieces.append(node.text_content or "")
        elif tag in _SKIPPED:
            continue
        elif tag == "br":
            pieces.append("\n")
        else:
            block = tag in _BLOCKS and not (owner == "tr" and tag in ("td", "th", "p", "div"))
            if block:
                if pieces:
                    yield owner, "".join(pieces)
                    pieces = []
                stack.append((None, owner))
                # A paragraph inside a list item is still the item.
                owner = owner if tag in ("p", "div", "span") and owner in _KINDS else tag
            elif tag in ("td", "th", "p", "div") and pieces:
                pieces.append(" | " if tag in ("td", "th") else " ")
            child = node.last_child
            while child is not None:
                stack.append((child, owner))
                child = child.prev
    if pieces:
        yield owner, "".join(pieces)
