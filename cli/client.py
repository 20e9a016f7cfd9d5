"""A thin client of the HTTP API for the commands: JSON in, JSON out, and answers as they stream."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

import httpx

from cli.connection import Connection
from cli.exits import NO, UNREACHABLE, USAGE, Refused

_TIMEOUT = httpx.Timeout(30.0, connect=3.0)
# The server sends a heartbeat every 15 s: a stream that is silent for much longer has lost its connection.
_STREAM_TIMEOUT = httpx.Timeout(45.0, connect=3.0)
_RESUME_PAUSES_S = (0.1, 0.3, 1.0, 2.0, 4.0)
_TERMINAL = ("done", "failed")


class StreamEvent(NamedTuple):
    """An event of an answer's stream."""

    event_id: str | None
    name: str
    data: dict[str, Any]


class Client:
    """Speaks to one Leat. Its errors are ``Refused``, with the exit code that fits."""

    def __init__(self, connection: Connection) -> None:
        headers = {"Authorization": f"Bearer {connection.token}"} if connection.token else {}
        self._http = httpx.Client(
            base_url=connection.api_url, headers=headers, timeout=_TIMEOUT, trust_env=False, follow_redirects=False
        )
        self._url = connection.api_url

    def get(self, path: str, **params: Any) -> Any:
        given = {name: value for name, value in params.items() if value is not None}
        return self._json("GET", path, params=given)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._json("POST", path, json=body)

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._json("PATCH", path, json=body)

    def put_text(self, path: str, text: str, content_type: str = "text/markdown") -> Any:
        return self._json("PUT", path, content=text.encode(), headers={"Content-Type": content_type})

    def delete(self, path: str) -> Any:
        return self._json("DELETE", path)

    def stream(self, body: Mapping[str, Any]) -> Iterator[StreamEvent]:
        """Ask, and yield the events of the answer. A lost connection is resumed behind the last event."""
        resume_at, last_id = None, None
        for pause_s in (*_RESUME_PAUSES_S, None):
            try:
                for event in self._events(body, resume_at, last_id):
                    last_id = event.event_id or last_id
                    if event.name == "meta":
                        resume_at = event.data.get("stream_url")
                    yield event
                    if event.name in _TERMINAL:
                        return
            except httpx.TransportError as error:
                if resume_at is None:
                    raise self._unreachable(error) from error
            if pause_s is not None:
                time.sleep(pause_s)
        raise Refused("the answer's stream broke off and could not be resumed: ask again", UNREACHABLE)

    def _events(self, body: Mapping[str, Any], resume_at: str | None, last_id: str | None) -> Iterator[StreamEvent]:
        headers = {"Accept": "text/event-stream"}
        if resume_at is None:
            call = self._http.stream(
                "POST", "/api/v1/query/stream", json=body, headers=headers, timeout=_STREAM_TIMEOUT
            )
        else:
            headers |= {"Last-Event-ID": last_id} if last_id else {}
            call = self._http.stream("GET", resume_at, headers=headers, timeout=_STREAM_TIMEOUT)
        with call as response:
            if response.is_error:
                response.read()
                raise self._problem(response)
            yield from parse_events(response.iter_bytes())

    def _json(self, method: str, path: str, **kwargs: Any) -> Any:
        try:
            response = self._http.request(method, path, **kwargs)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        if response.is_error:
            raise self._problem(response)
        return response.json() if response.content else None

    def _unreachable(self, error: httpx.TransportError) -> Refused:
        reason = str(error) or type(error).__name__
        return Refused(f"{self._url} does not answer ({reason}): is `leat up` running? Try `leat doctor`", UNREACHABLE)

    def _problem(self, response: httpx.Response) -> Refused:
        try:
            problem = response.json()
        except ValueError:
            problem = {}
        said = problem.get("detail") or problem.get("title") or response.reason_phrase
        fields = "; ".join(f"{e.get('field', '')}: {e.get('detail', '')}" for e in problem.get("errors", []))
        message = f"{said} ({fields})" if fields else str(said)
        match response.status_code:
            case 401 | 403:
                return Refused(f"{message}: give --data of the running Leat, or LEAT_API_TOKEN", NO)
            case 400 | 422:
                return Refused(message, USAGE)
            case 502 | 503 | 504:
                return Refused(message, UNREACHABLE)
            case _:
                return Refused(message, NO)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()


def parse_events(chunks: Iterable[bytes]) -> Iterator[StreamEvent]:
    """Read server-sent events whose data is JSON; comments (heartbeats) are passed over."""
    event_id: str | None = None
    name = "message"
    data: list[str] = []
    for line in _lines(chunks):
        if not line:
            if data:
                yield StreamEvent(event_id, name, json.loads("\n".join(data)))
            name, data = "message", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif field == "id":
            event_id = value


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Lines that end in LF or CRLF. (httpx's ``iter_lines`` also splits at U+2028 and U+0085, which JSON may hold.)"""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode()
