"""Are the invariants of the design kept? Reads Kafka, PostgreSQL and the index, and compares with the ledger."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from infra.index import make_index
from infra.sparse import make_sparse_encoder
from infra.verifying import verify
from schemas import headers
from schemas.access import AccessLevel, Principal
from schemas.documents import DocumentKey
from schemas.pipeline import DocumentChunked, IndexCommitted
from schemas.topics import CHUNKS, DEAD_LETTERS, DOCUMENTS, INDEX_COMMITS, Topic, prefixed
from streams.model import IndexScope
from streams.topology import CHUNKER, INDEXER
from tests.faults.harness import Leat
from tests.faults.oracle import Acknowledged

_TOKEN = re.compile(r"tok[0-9a-f]{12}")

# What `leat verify` finds, by the invariant that it breaks.
_INVARIANT_OF_DRIFT = {
    "orphan-point": "V10",
    "missing-vector": "V12",
    "repeated-passage": "V3",
}

_SHOWN = """
select d.document_key, d.tenant, d.collection, d.document_id, d.access_level, d.failed_revision,
       -- Of what was deleted before a generation was begun, it holds nothing: there is nothing left to apply.
       coalesce(m.applied_revision, case when d.deleted then d.invisible_upto else -1 end) as applied_revision,
       coalesce(array_agg(p.text order by p.ordinal) filter (
           where p.point_id is not null and not d.deleted), '{}') as texts,
       count(p.point_id) filter (where not p.embedded) as without_vector,
       count(p.point_id) - count(distinct p.ordinal) as repeated
from documents d
join generations g on g.tenant = d.tenant and g.collection = d.collection and g.state = 'serving'
left join manifests m on m.document_key = d.document_key and m.generation_id = g.generation_id
left join passages p on p.document_key = d.document_key and p.generation_id = g.generation_id
                    and m.applied_revision > d.invisible_upto
group by d.document_key, m.applied_revision
"""


@dataclass(frozen=True)
class Violation:
    """One broken invariant."""

    invariant: str
    subject: str
    detail: str

    def __str__(self) -> str:
        return f"{self.invariant} {self.subject}: {self.detail}"


async def check(leat: Leat) -> list[Violation]:
    """All invariants, of everything in the ledger. Call it when nothing lags (``Leat.settled``)."""
    outcomes = await _outcomes(leat)
    letters = await _letters(leat)
    shown = {_key(row): row for row in await leat.pool.fetch(_SHOWN)}
    found = [
        *_nothing_lost(leat, shown, letters),
        *_as_the_oracle_says(leat, shown),
        *_accounted_for(leat, outcomes, letters),
    ]
    went_back = await leat.pool.fetch("select * from went_back")
    found += [
        Violation("V5", f"document {row['document_key']}", f"{row['was']} to {row['became']}") for row in went_back
    ]
    found += [Violation("V6", *problem) for problem in await _access(leat)]
    verification = await verify(leat.settings)
    return found + [
        Violation(_INVARIANT_OF_DRIFT.get(drift.kind, "V2"), drift.subject, f"{drift.kind}: {drift.detail}")
        for drift in verification.drift
    ]


async def committed_too_far(leat: Leat) -> list[Violation]:
    """V7, looked at while every consumer is dead: what is committed is finished, stage by stage."""
    letters = await _letters(leat)
    documents = {_key(row): row["revision"] for row in await leat.pool.fetch("select * from documents")}
    applied = {_key(row): row["applied_revision"] for row in await leat.pool.fetch(_SHOWN)}
    chunked: dict[DocumentKey, int] = {}
    done = await committed_offsets(leat, INDEXER.group_of(CHUNKS, leat.settings.topic_prefix), CHUNKS)
    found = []
    for record in await read(leat, CHUNKS):
        event = DocumentChunked.model_validate_json(record.value)
        chunked[event.key] = max(chunked.get(event.key, -1), event.revision)
        if record.offset < done[record.partition] and applied.get(event.key, -1) < event.revision:
            found.append(Violation("V7", str(event.key), f"chunks at {record.offset} committed, but not applied"))
    done = await committed_offsets(leat, CHUNKER.group_of(DOCUMENTS, leat.settings.topic_prefix), DOCUMENTS)
    for entry in leat.ledger.entries:
        if entry.offset >= done[entry.partition] or letters[entry.partition, entry.offset]:
            continue
        if documents.get(entry.key, -1) < entry.revision:
            found.append(Violation("V7", entry.event_id, f"committed at {entry.offset}, but not admitted"))
        elif entry.token and documents[entry.key] == entry.revision and chunked.get(entry.key, -1) < entry.revision:
            found.append(Violation("V7", entry.event_id, f"committed at {entry.offset}, but not chunked"))
    return found


def _nothing_lost(leat: Leat, shown: dict[DocumentKey, Any], letters: Counter[tuple[int, int]]) -> Iterator[Violation]:
    """V1: applied at its revision or later, or exactly one dead letter."""
    for entry in leat.ledger.entries:
        buried = letters[entry.partition, entry.offset]
        row = shown.get(entry.key)
        reached = -1 if row is None else max(row["applied_revision"], _deleted_upto(leat, entry))
        if entry.poison:
            if buried != 1:
                yield Violation("V1", entry.event_id, f"{buried} dead letters of a record that can never succeed")
        elif buried:
            yield Violation("V1", entry.event_id, "a good record is a dead letter")
        elif reached < entry.revision:
            change = f"{entry.change.value} of {entry.key} at {entry.partition}/{entry.offset}"
            yield Violation("V1", entry.event_id, f"{change} is at revision {entry.revision}, applied is {reached}")


def _deleted_upto(leat: Leat, entry: Acknowledged) -> int:
    """An access change of a deleted document has nothing to apply."""
    expected = leat.ledger.expected().get(entry.key) if entry.level and not entry.token else None
    return expected.revision if expected is not None and expected.token is None else -1


def _as_the_oracle_says(leat: Leat, shown: dict[DocumentKey, Any]) -> Iterator[Violation]:
    """V2 (the text of the last change, and no other), V3 (no passage twice), V12 (every passage has its vector)."""
    for key, expected in leat.ledger.expected().items():
        row = shown.get(key)
        if row is None:
            if expected.token:
                yield Violation("V2", str(key), "not in the database")
            continue
        tokens = {token for text in row["texts"] for token in _TOKEN.findall(text)}
        wanted = {expected.token} if expected.token else set()
        if tokens != wanted:
            yield Violation("V2", str(key), f"shows {sorted(tokens)}, want {sorted(wanted)}")
        if row["repeated"]:
            yield Violation("V3", str(key), f"{row['repeated']} passages stand twice")
        if row["without_vector"]:
            yield Violation("V12", str(key), f"{row['without_vector']} passages without a vector")
        if wanted and AccessLevel(list(AccessLevel)[row["access_level"]]) is not expected.level:
            yield Violation("V6", str(key), f"access level {row['access_level']}, want {expected.level}")


def _accounted_for(leat: Leat, outcomes: dict[str, set[str]], letters: Counter[tuple[int, int]]) -> Iterator[Violation]:
    """V8: every change has its one outcome, once nothing is in flight."""
    for entry in leat.ledger.entries:
        said = outcomes.get(entry.event_id, set())
        if entry.poison:
            said = said or ({"failed"} if letters[entry.partition, entry.offset] else set())
        if not said:
            yield Violation("V8", entry.event_id, f"{entry.change.value} of {entry.key} has no outcome")
        elif "failed" in said and len(said) > 1:
            yield Violation("V8", entry.event_id, f"said to be {' and '.join(sorted(said))}")


async def _access(leat: Leat) -> list[tuple[str, str]]:
    """V6: what the index lets through for the public is what the database calls public."""
    rows = await leat.pool.fetch(
        """
        select p.point_id, d.access_level, g.generation_id, g.tenant,
               'leat-' || g.embedding_fingerprint || '-' || g.dimensions as space
        from passages p join documents d using (document_key) join generations g using (generation_id)
        where g.state = 'serving' and p.text like '%canary%'
        """
    )
    if not rows:
        return []
    index, terms = make_index(leat.settings), make_sparse_encoder().encode_query("canary")
    try:
        everybody = IndexScope.of(Principal(tenant=rows[0]["tenant"], subject="guest"), rows[0]["generation_id"])
        found = await index.search(rows[0]["space"], everybody, dense=None, sparse=terms, limit=5000)
    finally:
        await index.close()
    seen = {candidate.point_id for candidate in found.sparse}
    problems = []
    for row in rows:
        public = row["access_level"] == AccessLevel.PUBLIC.rank
        if public != (row["point_id"] in seen):
            problems.append((str(row["point_id"]), f"level {row['access_level']}, public in the index: {not public}"))
    return problems


async def _outcomes(leat: Leat) -> dict[str, set[str]]:
    said = defaultdict(set)
    for record in await read(leat, INDEX_COMMITS):
        outcome = IndexCommitted.model_validate_json(record.value)
        said[outcome.event_id].add(outcome.outcome.value)
    return said


async def _letters(leat: Leat) -> Counter[tuple[int, int]]:
    """Dead letters per record of the documents topic, wherever its derived records died."""
    found: Counter[tuple[int, int]] = Counter()
    for record in await read(leat, DEAD_LETTERS):
        named = dict(record.headers)
        if named[headers.DEAD_TOPIC].decode() == DOCUMENTS.name:
            found[int(named[headers.DEAD_PARTITION]), int(named[headers.DEAD_OFFSET])] += 1
    return found


async def read(leat: Leat, topic: Topic) -> list[Any]:
    """Every record of a topic."""
    name = prefixed(topic.name, leat.settings.topic_prefix)
    consumer = AIOKafkaConsumer(
        name, bootstrap_servers=leat.settings.kafka_bootstrap_servers, auto_offset_reset="earliest"
    )
    await consumer.start()
    found: list[Any] = []
    try:
        ends = await consumer.end_offsets(sorted(consumer.assignment()))
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=200, max_records=5000)).values():
                found += records
    finally:
        await consumer.stop()
    return found


async def committed_offsets(leat: Leat, group: str, topic: Topic) -> defaultdict[int, int]:
    """By partition; 0 where nothing is committed."""
    admin = AIOKafkaAdminClient(bootstrap_servers=leat.settings.kafka_bootstrap_servers)
    await admin.start()
    try:
        name = prefixed(topic.name, leat.settings.topic_prefix)
        partitions = [TopicPartition(name, n) for n in range(leat.settings.partitions)]
        found = await admin.list_consumer_group_offsets(group, partitions=partitions)
        return defaultdict(int, {tp.partition: max(0, at.offset) for tp, at in found.items()})
    finally:
        await admin.close()


def _key(row: Any) -> DocumentKey:
    return DocumentKey(row["tenant"], row["collection"], row["document_id"])


def listed(violations: Iterable[Violation], limit: int = 20) -> str:
    """For the message of an assertion."""
    lines = [str(violation) for violation in violations]
    return "\n".join([*lines[:limit], *([f"… {len(lines) - limit} more"] if len(lines) > limit else [])])
