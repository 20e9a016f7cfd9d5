"""Characters that no store takes: NUL, which PostgreSQL refuses, and lone surrogates, which UTF-8 cannot write."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from streams.model import ParsedDocument

_REPLACEMENT = "\ufffd"


def storable_text(text: str) -> str:
    """The text with a replacement character for each that cannot be stored: offsets stay what they are."""
    if "\x00" in text:
        text = text.replace("\x00", _REPLACEMENT)
    if _has_lone_surrogate(text):
        text = "".join(_REPLACEMENT if "\ud800" <= character <= "\udfff" else character for character in text)
    return text


def storable(value: Any) -> Any:
    """The same for every string in a JSON value, keys included."""
    if isinstance(value, str):
        return storable_text(value)
    if isinstance(value, dict):
        return {storable(key): storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable(item) for item in value]
    return value


def storable_document(parsed: ParsedDocument) -> ParsedDocument:
    """A parsed document that every store takes; formats other than text can hold anything."""
    return replace(
        parsed,
        text=storable_text(parsed.text),
        title=None if parsed.title is None else storable_text(parsed.title),
        metadata=storable(parsed.metadata),
        blocks=tuple(
            block
            if all(map(_is_storable, block.heading_path))
            else replace(block, heading_path=tuple(map(storable_text, block.heading_path)))
            for block in parsed.blocks
        ),
    )


def unstorable(value: Any, path: str = "") -> Iterator[str]:
    """Where in a JSON value the characters are that cannot be stored: ``metadata.author`` …"""
    if isinstance(value, str) and not _is_storable(value):
        yield path or "the value"
    elif isinstance(value, dict):
        for key, item in value.items():
            if not _is_storable(key):
                yield f"{path} (a key)".strip()
            yield from unstorable(item, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        for item in value:
            yield from unstorable(item, path)


def _is_storable(text: str) -> bool:
    return "\x00" not in text and not _has_lone_surrogate(text)


def _has_lone_surrogate(text: str) -> bool:
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
