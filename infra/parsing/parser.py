"""The ``Parser`` adapter: finds the format, decodes text, hands hostile formats to the parser process."""

import asyncio
from dataclasses import replace

from infra.parsing.decoding import decode
from infra.parsing.html import parse_html
from infra.parsing.parser_process import ParserProcess
from streams.errors import UnreadableDocument
from streams.formats import Format, content_type_of, format_of
from streams.model import Content, ParsedDocument
from streams.parse_text import parse_source, with_title

# Below this a parse takes some 20 ms at most: the event loop may wait. Above it, a thread.
_INLINE_BYTES = 256 * 1024
# Lexbor takes time quadratic in the depth of nesting: 50 ms for a hostile page of this size, 30 s for a megabyte.
# Above it, the parser process with its limits.
_INLINE_HTML_BYTES = 64 * 1024


class DocumentParser:
    """Reads every supported format; see ``streams.ports.Parser``."""

    def __init__(self, *, max_document_bytes: int, memory_bytes: int, timeout_s: float) -> None:
        self._max_document_bytes = max_document_bytes
        self._process = ParserProcess(memory_bytes=memory_bytes, timeout_s=timeout_s)

    async def parse(self, content: Content) -> ParsedDocument:
        """Text and structure of a document.

        Raises:
            UnreadableDocument: with a fixed reason and the way out; retrying cannot help.
            TransientError: the parser process does not start.
        """
        self._check_size(content)
        content_type = content_type_of(content.content_type, content.document_id, content.data[:4096])
        format = format_of(content_type, content.document_id)
        if format.is_text:
            parsed = await self._parse_text(content, format, content_type)
        else:
            parsed = with_title(await self._parse_binary(content, format), content.document_id)
            parsed = replace(parsed, content_type=content_type)
        if not parsed.blocks:
            raise _empty(content)
        return parsed

    async def close(self) -> None:
        """Stop the parser process."""
        await self._process.close()

    def _check_size(self, content: Content) -> None:
        size = len(content.data)
        if size > self._max_document_bytes:
            raise UnreadableDocument(
                "document-too-large",
                f"{content.document_id!r} has {size / 2**20:.1f} MiB, and "
                f"{self._max_document_bytes / 2**20:.0f} MiB are allowed: split it, or raise LEAT_MAX_DOCUMENT_BYTES.",
            )
        if not content.data.strip():
            raise _empty(content)

    async def _parse_text(self, content: Content, format: Format, content_type: str) -> ParsedDocument:
        if len(content.data) <= _INLINE_BYTES:
            return _source(content, format, content_type)
        return await asyncio.to_thread(_source, content, format, content_type)

    async def _parse_binary(self, content: Content, format: Format) -> ParsedDocument:
        if format is Format.HTML:
            # Decoded here: the encoding is found in one way for every text format.
            text = decode(content.data, content.document_id)
            if len(content.data) <= _INLINE_HTML_BYTES:
                return parse_html(text)
            return await self._process.parse(text.encode(), format)
        return await self._process.parse(content.data, format)


def _source(content: Content, format: Format, content_type: str) -> ParsedDocument:
    text = decode(content.data, content.document_id)
    return parse_source(text, format=format, content_type=content_type, document_id=content.document_id)


def _empty(content: Content) -> UnreadableDocument:
    return UnreadableDocument(
        "empty-document", f"{content.document_id!r} holds no text: write something, or delete the document."
    )
