"""A model server with Ollama's API (and the OpenAI-compatible one under ``/v1``) that misbehaves on request.

Real HTTP/1.1 over a socket, written out by hand so that a connection can hang before its headers, break in the middle
of a chunk, or stream garbage. What it answers when it behaves follows Ollama 0.9 to 0.17.

    async with StubOllama() as server:
        server.faults = Faults(cut_after=3)
"""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from zlib import crc32

NOW = "2025-01-01T00:00:00.000000Z"
OBEYED = re.compile(r'\b(?:say|print|write|output|repeat)\s+"([^"]+)"', re.IGNORECASE)
REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 500: "Internal Server Error", 503: "Service Unavailable"}


@dataclass
class Faults:
    """What goes wrong from now on. All off: it behaves."""

    hang_before_headers: bool = False
    hang_after: int | None = None
    """Tokens, after which nothing comes any more and the connection stays open."""
    cut_after: int | None = None
    """Tokens, after which the connection breaks."""
    die_after: int | None = None
    """Tokens, after which the process that runs the model dies: an error line, then an orderly end."""
    garbage_after: int | None = None
    """Tokens, after which bytes come that are neither JSON nor UTF-8."""
    pause_s: float = 0.0
    """Before every token."""
    load_s: float = 0.0
    """That it takes until the model is in memory."""
    endless: bool = False
    status: int | None = None
    """Every request is answered with this."""
    refuse_every: int | None = None
    """Every so many requests to generate, one is answered with status 500."""
    vectors: Callable[[list[list[float]]], Any] | None = None
    """What becomes of the vectors."""


@dataclass
class Model:
    capabilities: tuple[str, ...]
    dimensions: int = 16
    context: int = 512
    digest: str = "a" * 64


@dataclass
class StubOllama:
    """Knows ``writer`` (generates), ``embedder`` (embeds) and what tests add to ``models``."""

    faults: Faults = field(default_factory=Faults)
    obey: bool = False
    """Say whatever any text in the prompt asks it to say in quotes: the most gullible model there is."""
    answer: list[str] = field(default_factory=lambda: ["Kafka ", "keeps ", "the newest ", "record ", "[1]", "."])
    models: dict[str, Model] = field(
        default_factory=lambda: {"writer": Model(("completion",)), "embedder": Model(("embedding",))}
    )
    loaded: set[str] = field(default_factory=set)
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Path and body of each, in order."""
    tokens_sent: int = 0
    open_connections: int = 0
    url: str = ""
    _server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Stop listening and break every connection."""
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]

    def __post_init__(self) -> None:
        self._asked = 0
        self._tasks: set[asyncio.Task[None]] = set()

    # One connection, one request

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            path, body = await _read_request(reader)
            await self._work(path, body, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _work(
        self, path: str, body: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Reply until the client goes away. A client's pool may hold connections on which nothing was ever asked, when
        its call was cancelled as it connected: the model does nothing for those.
        """
        self.open_connections += 1
        self.requests.append((path, body))
        gone = asyncio.ensure_future(reader.read(1))  # a client that goes away reads as an end of file
        reply = asyncio.ensure_future(self._reply(path, body, _Response(writer)))
        try:
            await asyncio.wait({gone, reply}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            reply.cancel()
            gone.cancel()
            await asyncio.gather(reply, gone, return_exceptions=True)
            self.open_connections -= 1

    async def _reply(self, path: str, body: dict[str, Any], response: "_Response") -> None:
        if self.faults.hang_before_headers:
            await asyncio.Event().wait()
        if self.faults.status is not None:
            await response.json({"error": "as you wish"}, self.faults.status)
            return
        name = str(body.get("model") or body.get("name") or "")
        model = self.models.get(name.removesuffix(":latest"))
        if path == "/api/tags":
            rows = [
                {"model": f"{each}:latest", "name": f"{each}:latest", "digest": m.digest}
                for each, m in self.models.items()
            ]
            await response.json({"models": rows})
        elif path == "/api/ps":
            await response.json({"models": [{"model": f"{each}:latest"} for each in sorted(self.loaded)]})
        elif path == "/v1/models":
            await response.json({"data": [{"id": each, "max_model_len": m.context} for each, m in self.models.items()]})
        elif model is None:
            error: Any = f"model '{name}' not found"
            await response.json({"error": {"message": error} if path.startswith("/v1") else error}, 404)
        elif path == "/api/show":
            info = {"stub.embedding_length": model.dimensions, "stub.context_length": model.context}
            await response.json({"capabilities": model.capabilities, "model_info": info, "details": {}})
        elif path in ("/api/embed", "/v1/embeddings"):
            await self._embed(path, name, model, body, response)
        elif path in ("/api/chat", "/api/generate", "/v1/chat/completions"):
            await self._generate(path, name, model, body, response)
        else:
            await response.json({"error": "no such path"}, 404)

    # Embedding

    async def _embed(self, path: str, name: str, model: Model, body: dict[str, Any], response: "_Response") -> None:
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        if body.get("truncate", False) is False and any(len(text.split()) > model.context for text in texts):
            await response.json({"error": "the input length exceeds the context length"}, 400)
            return
        await asyncio.sleep(self.faults.pause_s)
        vectors = [embedding(text, model.dimensions) for text in texts]
        rows = self.faults.vectors(vectors) if self.faults.vectors else vectors
        if path == "/api/embed":
            await response.json({"model": name, "embeddings": rows, "total_duration": 1, "load_duration": 1})
            return
        data = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)]
        await response.json({"object": "list", "data": data[::-1], "model": name})

    # Generation

    async def _generate(self, path: str, name: str, model: Model, body: dict[str, Any], response: "_Response") -> None:
        if "completion" not in model.capabilities:
            await response.json({"error": f'"{name}" does not support generate'}, 400)
            return
        if self.faults.refuse_every and body.get("messages"):
            self._asked += 1
            if self._asked % self.faults.refuse_every == 0:
                await response.json({"error": "now and then"}, 500)
                return
        if name not in self.loaded:
            await asyncio.sleep(self.faults.load_s)
            self.loaded.add(name)
        if path == "/api/generate" and not body.get("prompt"):
            await response.json({"model": name, "created_at": NOW, "response": "", "done": True, "done_reason": "load"})
            return
        lines = _openai_lines if path.startswith("/v1") else _ollama_lines
        await response.begin("text/event-stream" if path.startswith("/v1") else "application/x-ndjson")
        async for line in lines(name, self._tokens(body, response)):
            await response.chunk(line)
        await response.end()

    async def _tokens(self, body: dict[str, Any], response: "_Response") -> AsyncIterator[str]:
        faults = self.faults
        tokens = self._said(body)
        limit = (body.get("options") or {}).get("num_predict") or body.get("max_tokens") or sys.maxsize
        count = 0
        while count < (sys.maxsize if faults.endless else min(len(tokens), limit)):
            if count == faults.hang_after:
                await asyncio.Event().wait()
            if count == faults.cut_after:
                response.abort()
            if count == faults.die_after:
                await response.chunk('{"error":"an error was encountered while running the model: unexpected EOF"}\n')
                await response.end()
                raise ConnectionError
            if count == faults.garbage_after:
                await response.chunk(b"data: \xff\xfe not json\n\n")
            await asyncio.sleep(faults.pause_s)
            yield tokens[count % len(tokens)]
            count += 1
            self.tokens_sent += 1

    def _said(self, body: dict[str, Any]) -> list[str]:
        if not self.obey:
            return self.answer
        prompt = "\n".join(str(message.get("content")) for message in body.get("messages", []))
        return [word + " " for said in OBEYED.findall(prompt) for word in said.split(" ")] or self.answer


class _Response:
    """Writes one HTTP response; the connection is closed after it."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def json(self, value: Any, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self._head(status, "application/json", f"Content-Length: {len(body)}")
        self._writer.write(body)
        await self._writer.drain()

    async def begin(self, content_type: str) -> None:
        self._head(200, content_type, "Transfer-Encoding: chunked")
        await self._writer.drain()

    async def chunk(self, line: str | bytes) -> None:
        data = line.encode() if isinstance(line, str) else line
        self._writer.write(b"%x\r\n%s\r\n" % (len(data), data))
        await self._writer.drain()

    async def end(self) -> None:
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()

    def abort(self) -> None:
        self._writer.transport.abort()
        raise ConnectionError

    def _head(self, status: int, content_type: str, framing: str) -> None:
        lines = [
            f"HTTP/1.1 {status} {REASONS.get(status, '')}",
            f"Content-Type: {content_type}",
            framing,
            "Connection: close",
        ]
        self._writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())


def embedding(text: str, dimensions: int) -> list[float]:
    """Not of unit length, so that somebody has to make it so."""
    vector = [0.0] * dimensions
    for word in text.split():
        vector[crc32(word.encode()) % dimensions] += 3.0
    return vector if any(vector) else [1.0] * dimensions


async def _read_request(reader: asyncio.StreamReader) -> tuple[str, dict[str, Any]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    path = head.split(" ", 2)[1]
    length = re.search(r"(?im)^content-length: *(\d+)", head)
    body = await reader.readexactly(int(length[1])) if length else b""
    return path, json.loads(body) if body else {}


async def _ollama_lines(model: str, tokens: AsyncIterator[str]) -> AsyncIterator[str]:
    start = {"model": model, "created_at": NOW}
    async for token in tokens:
        yield json.dumps({**start, "message": {"role": "assistant", "content": token}, "done": False}) + "\n"
    durations = {"total_duration": 3, "load_duration": 1, "prompt_eval_count": 9, "eval_count": 6, "eval_duration": 1}
    end = {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop", **durations}
    yield json.dumps({**start, **end}) + "\n"


async def _openai_lines(model: str, tokens: AsyncIterator[str]) -> AsyncIterator[str]:
    start = {"id": "stub", "object": "chat.completion.chunk", "created": 0, "model": model}
    async for token in tokens:
        choice = {"index": 0, "delta": {"content": token}, "finish_reason": None}
        yield f"data: {json.dumps({**start, 'choices': [choice]})}\n\n"
    yield f"data: {json.dumps({**start, 'choices': [{'index': 0, 'delta': {}, 'finish_reason': 'stop'}]})}\n\n"
    yield "data: [DONE]\n\n"
