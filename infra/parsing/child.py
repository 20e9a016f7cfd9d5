"""The process that parses hostile formats: ``python -m infra.parsing.child MEMORY_BYTES TIMEOUT_S``.

Frames come on stdin and go to stdout. It holds no secrets, opens no files and no connections. Limits of the operating
system end it when a document goes too far; the parent starts another one.
"""

import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, BinaryIO

from infra.parsing.docx import parse_docx
from infra.parsing.frames import LENGTH_BYTES, pack, refusal_of, reply_of, unpack
from infra.parsing.html import parse_html
from infra.parsing.pdf import parse_pdf
from streams.errors import UnreadableDocument
from streams.formats import Format
from streams.model import ParsedDocument

_PARSERS: dict[str, Callable[[bytes], ParsedDocument]] = {
    Format.PDF: parse_pdf,
    Format.DOCX: parse_docx,
    Format.HTML: parse_html,
}


def main() -> int:
    memory_bytes, timeout_s = int(sys.argv[1]), float(sys.argv[2])
    incoming, outgoing = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # Whatever a library prints must not land between two frames.
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    outgoing.write(pack({"ready": True}))
    outgoing.flush()
    while (request := _receive(incoming)) is not None:
        _allow_cpu_seconds(timeout_s)
        try:
            reply = pack(_answer(request))
        except MemoryError:
            # Nothing is sure after this: say so and make room for a fresh process.
            del request
            outgoing.write(pack(refusal_of(out_of_memory(memory_bytes)) | {"last": True}))
            outgoing.flush()
            return 3
        outgoing.write(reply)
        outgoing.flush()
    return 0


def out_of_memory(memory_bytes: int) -> UnreadableDocument:
    return UnreadableDocument(
        "parser-out-of-memory",
        f"the document needs more than {memory_bytes // 2**20} MiB: split it, or raise LEAT_PARSE_MEMORY_BYTES.",
    )


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        return reply_of(_PARSERS[request["format"]](request["data"]))
    except UnreadableDocument as error:
        return refusal_of(error)
    except RecursionError:
        return refusal_of(UnreadableDocument("corrupt-document", "the document is nested too deeply to be read."))


def _receive(stream: BinaryIO) -> dict[str, Any] | None:
    """The next request; None when the parent has gone."""
    header = stream.read(LENGTH_BYTES)
    if len(header) < LENGTH_BYTES:
        return None
    body = stream.read(int.from_bytes(header, "big"))
    return unpack(body)


def _allow_cpu_seconds(seconds: float) -> None:
    """A parent that dies cannot stop us: past its timeout the kernel does."""
    limit = int(time.process_time() + seconds) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


if __name__ == "__main__":
    sys.exit(main())
