"""Upkeep of the chunker: compares the log with its fold, slice by slice, for ever, and folds in what is missing.

Committed offsets say that every record was received; a database that was restored from an old copy says otherwise, and
nobody would ever read those records again.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from consumers.delivery import Handler
from schemas import headers
from streams.admit import revision
from streams.backfill import LogScanner
from streams.decode import IncomingChange, decode, is_neutralised
from streams.epoch import EpochWatch
from streams.errors import InvalidRecord
from streams.model import LogPlace, Ordering
from streams.ports import Catalog, DocumentLedger
from streams.records import Record

log = logging.getLogger(__name__)

# Records per round, once a minute: half a second of work; a log of a hundred thousand records takes 20 minutes.
SLICE_RECORDS = 5_000


class LogAudit:
    """One slice of the documents topic per round, from its beginning to its end and again."""

    def __init__(
        self,
        scanner: LogScanner,
        *,
        catalog: Catalog,
        ledger: DocumentLedger,
        epochs: EpochWatch,
        home_of: Callable[[bytes], int],
        handler: Handler,
        lag: Callable[[], Awaitable[Mapping[str, int]]],
    ) -> None:
        self._scanner = scanner
        self._catalog = catalog
        self._ledger = ledger
        self._epochs = epochs
        self._home_of = home_of
        self._handler = handler
        self._lag = lag
        self._positions: dict[int, int] = {}

    async def run(self) -> None:
        """One round; does nothing while any group lags, for then a change may simply be on its way."""
        if any((await self._lag()).values()):
            return
        ends = await self._scanner.ends()
        share = max(1, SLICE_RECORDS // max(1, len(ends)))
        upto = {partition: min(end, self._positions.get(partition, 0) + share) for partition, end in ends.items()}
        async for scanned in self._scanner.scan(self._positions, upto):
            if missing := await self._missing(scanned.records):
                log.warning("changes_folded_in_again", extra={"records": len(missing)})
                await self._handler(missing)
        self._positions = {} if upto == ends else upto

    async def _missing(self, records: Sequence[Record]) -> list[Record]:
        """Records whose document the fold does not know, or knows at an older revision only."""
        found: list[tuple[Record, IncomingChange, int]] = []
        for record in records:
            # A copy that was sent home ranks where the first one stood: the fold knows that place, the record does not.
            if is_neutralised(record) or record.header(headers.ORIGIN) is not None:
                continue
            try:
                incoming = decode(record)
                if incoming.misnamed or record.partition != self._home_of(incoming.key.encode()):
                    continue
                at = LogPlace(self._epochs.epoch, record.partition, record.offset)
                if await self._catalog.is_over(incoming.key.tenant, incoming.key.collection, at):
                    continue
                collection = await self._catalog.find(incoming.key.tenant, incoming.key.collection)
                ordering = Ordering.LOG if collection is None else collection.ordering
                found.append((record, incoming, revision(incoming, record, ordering=ordering, epoch=at.epoch)))
            except InvalidRecord:
                continue  # a dead letter
        heads = await self._ledger.heads(list({incoming.key for _, incoming, _ in found}))
        return [record for record, incoming, at in found if heads.get(incoming.key, -1) < at]
