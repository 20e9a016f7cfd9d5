"""Reading documents of any format: text here, binary formats in a child process with limits."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infra.parsing.parser import DocumentParser
    from infra.settings import Settings


def make_parser(settings: "Settings") -> "DocumentParser":
    """The ``Parser`` of an installation; ``await close()`` it. The child starts with the first binary document."""
    # Imported here because the child process imports this package too, and must stay small.
    from infra.parsing.parser import DocumentParser

    return DocumentParser(
        max_document_bytes=settings.max_document_bytes,
        memory_bytes=settings.parse_memory_bytes,
        timeout_s=settings.parse_timeout_s,
    )
