"""Put the parts of a revision together again, and know what must not be committed until they are."""

from dataclasses import dataclass, field

from schemas.documents import DocumentKey
from schemas.pipeline import DocumentChunked


@dataclass(frozen=True, slots=True)
class Incomplete:
    """Parts that wait for others of their revision, as they stood at one moment."""

    name: tuple[int, DocumentKey]
    revision: int
    digest: bytes
    partition: int
    numbers: frozenset[int]


@dataclass(slots=True)
class _Pending:
    revision: int
    digest: bytes
    partition: int
    first_offset: int
    parts: dict[int, DocumentChunked] = field(default_factory=dict)

    def is_whole(self, of: int) -> bool:
        return len(self.parts) == of


class Assembler:
    """Collects parts per (generation, document). Parts of other attempts (another digest) are never mixed in.

    What was handed out whole is kept until ``settle``: if indexing it fails, only the records of the last batch come
    again, and the parts before them must still be here.
    """

    def __init__(self) -> None:
        self._pending: dict[tuple[int, DocumentKey], _Pending] = {}

    def add(self, part: DocumentChunked, *, partition: int, offset: int) -> DocumentChunked | None:
        """Take a part in; the whole revision, as one event, when none is missing any more.

        A newer revision or another attempt drops what was collected: the chunker publishes in order, so the rest of the
        older one can no longer matter.
        """
        if part.parts == 1:
            self._pending.pop((part.generation_id, part.key), None)
            return part
        name = (part.generation_id, part.key)
        pending = self._pending.get(name)
        if pending is None or (pending.revision, pending.digest) != (part.revision, part.digest):
            pending = _Pending(part.revision, part.digest, partition, offset)
            self._pending[name] = pending
        pending.parts[part.part] = part
        pending.first_offset = min(pending.first_offset, offset)
        if not pending.is_whole(part.parts):
            return None
        passages = tuple(passage for number in sorted(pending.parts) for passage in pending.parts[number].passages)
        return pending.parts[1].model_copy(update={"passages": passages, "parts": 1})

    def settle(self, whole: DocumentChunked) -> None:
        """A whole revision is done with, or will never be: its parts are not needed again."""
        pending = self._pending.get((whole.generation_id, whole.key))
        if pending is not None and (pending.revision, pending.digest) == (whole.revision, whole.digest):
            del self._pending[whole.generation_id, whole.key]

    def holding(self) -> dict[int, int]:
        """Lowest offset per partition whose revision is not complete."""
        lowest: dict[int, int] = {}
        for pending in self._pending.values():
            if pending.is_whole(next(iter(pending.parts.values())).parts):
                continue  # handed out: its batch is committed only when it is done with
            lowest[pending.partition] = min(lowest.get(pending.partition, pending.first_offset), pending.first_offset)
        return lowest

    def incomplete(self) -> frozenset[Incomplete]:
        """What is behind ``holding``; two that are equal stand for a revision of which nothing has come in between."""
        return frozenset(
            Incomplete(name, pending.revision, pending.digest, pending.partition, frozenset(pending.parts))
            for name, pending in self._pending.items()
            if not pending.is_whole(next(iter(pending.parts.values())).parts)
        )

    def give_up(self, given: Incomplete) -> None:
        """Drop parts whose revision will never be whole, unless more of them have come meanwhile."""
        if given in self.incomplete():
            del self._pending[given.name]

    def forget(self, partitions: frozenset[int]) -> None:
        """Drop what belongs to partitions that start again at their committed offset."""
        self._pending = {name: held for name, held in self._pending.items() if held.partition not in partitions}
