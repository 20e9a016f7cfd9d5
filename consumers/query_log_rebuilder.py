"""Rebuilds the query log from the questions and answers topics, for as far back as they reach."""

from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

from schemas.topics import ANSWERS, QUESTIONS, Topic
from streams.backfill import LogScanner, Scanned
from streams.errors import InvalidRecord
from streams.jobs import JobClaim, Progress
from streams.query_log import QueryLog, ending_of, question_of
from streams.records import Record

T = TypeVar("T")


class QueryLogRebuilder:
    """``JobWork``. With ``dry_run`` it counts. What is asked meanwhile is logged by the recorder as always."""

    def __init__(self, log: QueryLog, scanner_of: Callable[[Topic], LogScanner]) -> None:
        self._log = log
        self._scanner_of = scanner_of

    async def __call__(self, claim: JobClaim) -> Mapping[str, Any]:
        dry_run = bool(claim.job.payload.get("dry_run"))
        result: dict[str, Any] = {"dry_run": dry_run, "dropped": 0, "questions": 0, "answers": 0, "unreadable": 0}
        await claim.checkpoint()
        if not dry_run:
            result["dropped"] = await self._log.clear()
        for topic, name in ((QUESTIONS, "questions"), (ANSWERS, "answers")):
            await claim.save(phase=name)
            scanner = self._scanner_of(topic)
            ends = await scanner.ends()
            total = sum(ends.values()) - sum((await scanner.beginnings()).values())
            async with aclosing(scanner.scan({}, ends)) as stretches:  # type: ignore[type-var]
                async for stretch in stretches:
                    result[name] += await self._log_stretch(topic, stretch, result, dry_run=dry_run)
                    await claim.save(progress=Progress(total, min(total, result[name])))
                    await claim.checkpoint()
        return result

    async def _log_stretch(self, topic: Topic, stretch: Scanned, result: dict[str, Any], *, dry_run: bool) -> int:
        if topic is QUESTIONS:
            questions = _readable(stretch, question_of, result)
            if not dry_run:
                await self._log.log_questions(questions)
            return len(questions)
        endings = _readable(stretch, ending_of, result)
        if not dry_run:
            await self._log.log_endings(endings)
        return len(endings)


def _readable(stretch: Scanned, read: Callable[[Record], T], result: dict[str, Any]) -> list[T]:
    found = []
    for record in stretch.records:
        try:
            found.append(read(record))
        except InvalidRecord:
            result["unreadable"] += 1
    return found
