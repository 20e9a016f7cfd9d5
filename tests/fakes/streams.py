"""The answer stream in memory: the same ids, the same fence, no time-outs."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence

from schemas.answers import TERMINAL_EVENTS, QuestionAsked, RestartEvent, StreamEventName
from streams.errors import StaleAttempt, StreamLost, Unavailable
from streams.ports import Asker


class InMemoryAnswerStream:
    def __init__(self) -> None:
        self.entries: dict[str, list[tuple[tuple[int, int], str, str]]] = defaultdict(list)
        self.attempts: dict[str, int] = defaultdict(int)
        self.askers: dict[str, Asker] = {}
        self.readers: dict[str, int] = defaultdict(int)
        self.stopped: set[str] = set()
        self.down = False
        self._changed = asyncio.Condition()

    async def begin(self, question_id: str, owner: str) -> int:
        self._check()
        self.attempts[question_id] += 1
        attempt = self.attempts[question_id]
        if attempt > 1:
            restart = RestartEvent(attempt=attempt).model_dump_json()
            await self.append(question_id, attempt, 0, [(StreamEventName.RESTART.value, restart)])
        return attempt

    async def append(self, question_id: str, attempt: int, seq: int, events: Sequence[tuple[str, str]]) -> None:
        self._check()
        entries = self.entries[question_id]
        if entries and entries[-1][0][0] > attempt:
            raise StaleAttempt(question_id)
        for number, (event, data) in enumerate(events, start=seq):
            if not entries or entries[-1][0] < (attempt, number):
                entries.append(((attempt, number), event, data))
        async with self._changed:
            self._changed.notify_all()

    async def read(self, question_id: str, *, after: str | None) -> AsyncGenerator[tuple[str, str, str], None]:
        self._check()
        position = _parse(after) if after else (0, 0)
        known = [entry[0] for entry in self.entries[question_id]]
        if after and position not in known:
            raise StreamLost(after)
        if after and self.entries[question_id][known.index(position)][1] in TERMINAL_EVENTS:
            return
        self.readers[question_id] += 1
        try:
            while True:
                self._check()
                for entry_id, event, data in list(self.entries[question_id]):
                    if entry_id > position:
                        position = entry_id
                        yield f"{entry_id[0]}-{entry_id[1]}", event, data
                        if event in TERMINAL_EVENTS:
                            return
                async with self._changed:
                    while not self.down and not self._reaches_beyond(question_id, position):
                        await self._changed.wait()
        finally:
            self.readers[question_id] -= 1

    async def announce(self, question: QuestionAsked) -> None:
        self._check()
        principal = question.principal
        self.askers[question.question_id] = Asker(principal.tenant, principal.subject, question.deadline_at)

    async def asker(self, question_id: str) -> Asker | None:
        self._check()
        return self.askers.get(question_id)

    async def exists(self, question_id: str) -> bool:
        self._check()
        return bool(self.entries[question_id])

    async def forget(self, question_ids: Sequence[str]) -> None:
        self._check()
        for question_id in question_ids:
            self.entries.pop(question_id, None)
            self.askers.pop(question_id, None)

    async def stop(self, question_id: str) -> None:
        self._check()
        self.stopped.add(question_id)

    async def stop_requested(self, question_id: str) -> bool:
        return question_id in self.stopped

    async def attended(self, question_id: str) -> bool:
        return self.readers[question_id] > 0

    async def lose(self, question_id: str) -> None:
        """Forget the buffer, as a Redis does that came back empty."""
        self.entries[question_id].clear()

    async def go_down(self) -> None:
        self.down = True
        async with self._changed:
            self._changed.notify_all()

    def _reaches_beyond(self, question_id: str, position: tuple[int, int]) -> bool:
        entries = self.entries[question_id]
        return bool(entries) and entries[-1][0] > position

    def _check(self) -> None:
        if self.down:
            raise Unavailable("Redis", "it is down")


def _parse(text: str) -> tuple[int, int]:
    attempt, _, seq = text.partition("-")
    return int(attempt), int(seq)
