"""How long to wait for a model: for its first word, between words, and in all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from streams.errors import TransientError, Unavailable

T = TypeVar("T")

# A timer that goes off this much too late tells of us, not of the model: our process was stopped, or has no processor.
OVERSLEPT_S = 0.5


@dataclass(frozen=True, slots=True)
class Patience:
    first_token_s: float = 10.0
    """Reading the prompt included; the model is in memory."""
    between_tokens_s: float = 5.0
    total_s: float = 60.0
    """From the request to the last token, whatever happens in between."""

    def deadline(self) -> float:
        """The end of ``total_s``, in the time of the running loop."""
        return asyncio.get_running_loop().time() + self.total_s

    async def follow(self, parts: AsyncIterator[T], *, server: str, deadline: float) -> AsyncIterator[T]:
        """The parts as they come.

        Raises:
            Unavailable: the first one does not come in time.
            TransientError: the stream stands still, or goes on beyond the deadline.
        """
        pause_s = self.first_token_s
        first = True
        while True:
            try:
                async with _no_longer_than(pause_s, deadline):
                    part = await anext(parts)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                if first:
                    raise Unavailable(server, f"no first token within {pause_s:g} s") from error
                raise TransientError(f"{server} stopped in the middle of an answer") from error
            yield part
            first, pause_s = False, self.between_tokens_s
            if asyncio.get_running_loop().time() >= deadline:
                raise TransientError(f"{server} did not finish an answer within {self.total_s:g} s")


@asynccontextmanager
async def _no_longer_than(pause_s: float, deadline: float) -> AsyncIterator[None]:
    """Ends the block with ``TimeoutError``. Whoever overslept looks again before it says that nothing has come.

    A worker that was stopped for a while finds all its waits over at once; without this, every answer of the next half
    minute would go without the model, since so many failures together open the circuit.
    """
    loop = asyncio.get_running_loop()
    timers: list[asyncio.TimerHandle] = []
    async with asyncio.timeout(None) as limit:

        def look_at(due: float) -> None:
            timers[:] = [loop.call_at(due, over, due)]

        def over(due: float) -> None:
            now = loop.time()
            if now - due > OVERSLEPT_S and now < deadline:
                look_at(min(now + pause_s, deadline))
            else:
                limit.reschedule(now)

        look_at(min(deadline, loop.time() + pause_s))
        try:
            yield
        finally:
            timers[0].cancel()
