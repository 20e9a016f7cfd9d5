"""What must be true, computed from nothing but what was acknowledged: a fold in a few lines of plain Python."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from schemas.access import AccessLevel
from schemas.documents import Change, DocumentKey
from schemas.positions import revision_of


@dataclass(frozen=True)
class Acknowledged:
    """A change that the brokers have acknowledged, or an API has accepted."""

    key: DocumentKey
    event_id: str
    change: Change
    partition: int
    offset: int
    token: str | None = None
    """A word that stands in this revision's text and nowhere else."""
    level: AccessLevel | None = None
    poison: bool = False
    """It can never succeed: exactly one dead letter is right, an effect is wrong."""
    epoch: int = 0

    @property
    def revision(self) -> int:
        return revision_of(self.epoch, self.offset)


@dataclass(frozen=True)
class Expected:
    """What a search with every right must find of a document."""

    token: str | None
    """None: nothing."""
    revision: int
    level: AccessLevel


@dataclass
class Ledger:
    """Every acknowledged change, in the order of acknowledgement."""

    entries: list[Acknowledged] = field(default_factory=list)

    epoch: int = 0

    def add(self, entry: Acknowledged) -> Acknowledged:
        self.entries.append(replace(entry, epoch=self.epoch))
        return self.entries[-1]

    def begin_anew(self, *, epoch: int, kept: Sequence[Acknowledged] = ()) -> None:
        """The log was lost, all but ``kept``; whatever it holds counts under another epoch."""
        self.epoch = epoch
        self.entries = [replace(entry, epoch=epoch) for entry in kept]

    def expected(self) -> dict[DocumentKey, Expected]:
        return fold(self.entries)


def fold(entries: Iterable[Acknowledged]) -> dict[DocumentKey, Expected]:
    """The last change of a document wins; one that cannot be read leaves the text before it; a deletion ends it."""
    state: dict[DocumentKey, Expected] = {}
    for entry in sorted(entries, key=lambda entry: entry.revision):
        before = state.get(entry.key, Expected(None, -1, AccessLevel.PUBLIC))
        if entry.poison:
            continue
        match entry.change:
            case Change.UPSERT:
                level = entry.level or AccessLevel.PUBLIC
                state[entry.key] = Expected(entry.token, entry.revision, level)
            case Change.DELETE:
                state[entry.key] = Expected(None, entry.revision, before.level)
            case Change.ACCESS:
                assert entry.level is not None
                state[entry.key] = Expected(before.token, entry.revision, entry.level)
    return state
