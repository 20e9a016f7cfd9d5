"""The parser process with a parser that misbehaves on request: ``python -m tests.fakes.bad_parser MEMORY TIMEOUT``."""

import ctypes
import os
import sys
import time

from infra.parsing import child
from streams.model import Block, ParsedDocument


def _parse(data: bytes) -> ParsedDocument:
    text = data.decode()
    if text == "hang":
        while True:
            pass
    if text == "sleep":
        time.sleep(3600)
    if text == "allocate":
        hoard = []
        while True:
            hoard.append(bytearray(16 * 2**20))
    if text == "segfault":
        ctypes.string_at(0)
    if text == "exit":
        os._exit(1)
    if text == "print":
        print("this must not reach the parent's frames")
    return ParsedDocument(text, (Block(0, len(text)),))


if __name__ == "__main__":
    child._PARSERS["html"] = _parse
    sys.exit(child.main())
