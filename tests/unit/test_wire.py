"""Any token survives the wire, whoever reads it (check B01)."""

import asyncio
import json
from collections.abc import AsyncIterator

from hypothesis import given, settings
from hypothesis import strategies as st

from api.answer_events import AnswerEvent
from api.sse import frame
from cli.client import parse_events
from tests.processes import events

ODD = st.sampled_from(
    ["\r", "\n", "\r\n", "\x00", "\u2028", "\u2029", "\x85", "🦊", "data: ", "id: 7", "\n\nevent: done", ""]
)
TOKENS = st.lists(st.one_of(st.text(max_size=8), ODD, st.tuples(ODD, ODD).map("".join)), min_size=100, max_size=100)


class Arriving:
    """A response whose bytes arrive in pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces

    async def aiter_bytes(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece


@settings(max_examples=100, deadline=None)
@given(TOKENS, st.integers(1, 50))
def test_ten_thousand_tokens_survive_the_wire_for_two_readers(tokens, size):
    raw = b": a heartbeat\n\n".join(
        frame(AnswerEvent(f"1-{number}", "token", json.dumps({"text": text})))
        for number, text in enumerate(tokens, start=1)
    )
    pieces = [raw[start : start + size] for start in range(0, len(raw), size)]
    wanted = [(f"1-{number}", "token", {"text": text}) for number, text in enumerate(tokens, start=1)]
    assert [tuple(event) for event in parse_events(pieces)] == wanted

    async def read() -> list[tuple]:
        return [tuple(event) async for event in events(Arriving(pieces)) if event.name != ":"]  # type: ignore[arg-type]

    assert asyncio.run(read()) == wanted
