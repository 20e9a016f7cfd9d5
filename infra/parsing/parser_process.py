"""The parent's end of the parser process: one document at a time, restarted when it dies or hangs."""

import asyncio
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress
from pathlib import Path
from typing import Any

from infra.parsing.frames import LENGTH_BYTES, pack, parsed_of, unpack
from streams.errors import TransientError, UnreadableDocument
from streams.formats import Format
from streams.model import ParsedDocument

_ROOT = Path(__file__).resolve().parents[2]

# Nothing else of the environment: a hostile document that takes the process over finds no secret in it. One BLAS
# thread, since each reserves address space that counts against the memory limit.
_ENVIRONMENT = {"PYTHONPATH": str(_ROOT), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"}
# On a busy machine; no part of the time for a document.
_START_TIMEOUT_S = 30.0
_MODULE = "infra.parsing.child"


class ParserProcess:
    """A lazily started child with limits on memory, processor time and time. Calls queue up; documents fail alone."""

    def __init__(self, *, memory_bytes: int, timeout_s: float, module: str = _MODULE) -> None:
        self._memory_bytes = memory_bytes
        self._timeout_s = timeout_s
        self._module = module
        self._process: Process | None = None
        self._turn = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def parse(self, data: bytes, format: Format) -> ParsedDocument:
        """Parse in the child.

        Raises:
            UnreadableDocument: the child refused the document, or it hung, broke down or ran out of memory on it.
            TransientError: the child could not be started.
        """
        async with self._turn:
            process = await self._running()
            reply: dict[str, Any] | None = None
            try:
                async with asyncio.timeout(self._timeout_s):
                    reply = await _exchange(process, pack({"format": str(format), "data": data}))
            except TimeoutError as error:
                raise UnreadableDocument(
                    "parser-timeout",
                    f"the document takes longer than {self._timeout_s:g} s to read: split or simplify it.",
                ) from error
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                raise self._breakdown(await process.wait()) from error
            finally:
                # Without a reply (timeout, breakdown, cancellation) the pipe is out of step, and some replies are a
                # child's last: the next document gets a fresh one.
                if reply is None or "last" in reply:
                    await self._stop()
        return parsed_of(reply)

    async def close(self) -> None:
        async with self._turn:
            await self._stop()

    async def _running(self) -> Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        self._process = None
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", self._module, str(self._memory_bytes), str(self._timeout_s),
                stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=_ENVIRONMENT,
                start_new_session=True,  # Ctrl-C is for the parent, which finishes what is in flight
            )  # fmt: skip
        except OSError as error:
            raise TransientError(f"the parser process does not start: {error}") from error
        try:
            await asyncio.wait_for(_receive(process), _START_TIMEOUT_S)
        except (asyncio.IncompleteReadError, TimeoutError) as error:
            raise TransientError(f"the parser process does not start: {error!r}") from error
        else:
            self._process = process
        finally:
            if self._process is None:
                await _end(process)
        return process

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await _end(process)

    def _breakdown(self, returncode: int) -> UnreadableDocument:
        if returncode == -signal.SIGKILL:
            return UnreadableDocument("parser-out-of-memory", "the system ended the parser on this document: split it.")
        if returncode == -signal.SIGXCPU:
            return UnreadableDocument(
                "parser-timeout",
                f"reading the document takes more than {self._timeout_s:g} s of processor time: split it.",
            )
        return UnreadableDocument(
            "corrupt-document", "the parser broke down on this document: open it in its program and save it again."
        )


async def _end(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()


async def _exchange(process: Process, frame: bytes) -> dict[str, Any]:
    if process.stdin is None:
        raise ConnectionError("the parser process has no pipes")
    process.stdin.write(frame)
    await process.stdin.drain()
    return await _receive(process)


async def _receive(process: Process) -> dict[str, Any]:
    if process.stdout is None:
        raise ConnectionError("the parser process has no pipes")
    header = await process.stdout.readexactly(LENGTH_BYTES)
    return unpack(await process.stdout.readexactly(int.from_bytes(header, "big")))
