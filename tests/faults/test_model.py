"""Any order, any repetition, any death (A03): what is shown is the fold of the log, and nothing is embedded twice.

Hypothesis looks for a history that breaks this, and shrinks it to the shortest one. ``make faults`` tries 10,000.
"""

import asyncio
from collections.abc import Iterator
from unittest import mock

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from schemas.access import AccessLevel
from schemas.documents import Change, DocumentChanged, DocumentKey
from streams import parts
from streams.model import Flip
from tests.faults.model import LOG, SOURCE, UNREADABLE, Model, deletion, upsert
from tests.faults.oracle import Acknowledged, Expected, fold

DOCUMENTS = ("a.md", "b.md", "c.md")
VERSIONS = 6
HISTORIES = 200
STEPS = 30
GROUPS = st.sampled_from(sorted(Model().handlers))


def text_of(document: str, version: int) -> str:
    """Some paragraphs stay the same from version to version, some are in several documents."""
    stable = f"The stable paragraph of {document}."
    return "\n\n".join([stable, "A paragraph that stands everywhere.", f"tok{document[0]}{version} is the canary."])


class Histories(RuleBasedStateMachine):
    """Producers, groups that are slow, rewound or killed, and the question at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.model = Model()
        self.entries: list[Acknowledged] = []
        self.numbers = iter(range(10_000))

    @initialize()
    def prepare(self) -> None:
        self.runner.run(self.model.prepare())

    @rule(document=st.sampled_from(DOCUMENTS), bulk=st.booleans(), times=st.integers(1, 3))
    def edit(self, document: str, bulk: bool, times: int) -> None:
        for _ in range(times):
            number = next(self.numbers)
            self._say(document, upsert(text_of(document, number), event_id=f"e{number}"), f"{number}", bulk=bulk)

    @rule(document=st.sampled_from(DOCUMENTS))
    def delete(self, document: str) -> None:
        self._say(document, deletion(), None)

    @rule(document=st.sampled_from(DOCUMENTS))
    def tombstone(self, document: str) -> None:
        self._say(document, None, None)

    @rule(document=st.sampled_from(DOCUMENTS), level=st.sampled_from(list(AccessLevel)))
    def restrict(self, document: str, level: AccessLevel) -> None:
        self._say(document, DocumentChanged(change=Change.ACCESS, access_level=level), None, level=level)

    @rule(document=st.sampled_from(DOCUMENTS))
    def spoil(self, document: str) -> None:
        self._say(document, upsert(UNREADABLE), None, poison=True)

    @rule(
        document=st.sampled_from(DOCUMENTS),
        version=st.integers(1, VERSIONS),
        times=st.integers(1, 5),
        bulk=st.booleans(),
    )
    def arrive_out_of_order(self, document: str, version: int, times: int, bulk: bool) -> None:
        """A source that counts its versions: late, early, again. Every third version is a deletion."""
        for _ in range(times):
            change = deletion(source_version=version)
            if version % 3:
                change = upsert(text_of(document, version), source_version=version)
            key = DocumentKey("default", SOURCE, document)
            self.model.publish(key, change, bulk=bulk and version % 3 != 0)
            token = f"{version}" if version % 3 else None
            self.entries.append(Acknowledged(key, "", change.change, 0, version, token))

    @rule(group=GROUPS, size=st.integers(1, 6))
    def deliver(self, group: tuple[str, str], size: int) -> None:
        self.runner.run(self.model.deliver(group, size))

    @rule(group=GROUPS, size=st.integers(1, 6), passes=st.integers(0, 6))
    def deliver_and_die(self, group: tuple[str, str], size: int, passes: int) -> None:
        self.model.dies_after = passes
        self.runner.run(self.model.deliver(group, size))
        self.model.dies_after = None

    @rule(group=GROUPS, by=st.integers(1, 8))
    def deliver_again(self, group: tuple[str, str], by: int) -> None:
        self.model.rewind(group, by)

    @invariant()
    def never_goes_back(self) -> None:
        assert self.model.went_back == []

    def teardown(self) -> None:
        try:
            self.runner.run(self.model.settle())
            self.look()
            for _ in range(3):
                for group, _ in self.model.handlers.values():
                    group.committed = 0
                self.model.start()
                self.runner.run(self.model.settle())
                self.look()
        finally:
            self.runner.close()

    def look(self) -> None:
        """V1, V2, V3, V5, V6, V10, V11, V12, and what it cost."""
        assert self.model.lag() == {}
        assert self.model.went_back == []
        assert [found for found in self.model.drift() if found not in self._excused()] == []
        for key, expected in fold(self.entries).items():
            number = None if expected.token is None else int(expected.token)
            wanted = [] if number is None else text_of(key.document_id, number).split("\n\n")
            # Small neighbours may share a passage; what counts is the text.
            shown = [paragraph for text in self.model.shown(key) for paragraph in text.split("\n\n")]
            assert shown == wanted, key
            if number is not None:
                assert self.model.level(key) is self._level(key, expected)
        distinct = len(self.model.embedded)
        assert sum(self.model.embedded.values()) <= 1.05 * distinct

    def _level(self, key: DocumentKey, expected: Expected) -> AccessLevel:
        """Permissions come before parsing: those of a change that cannot be read hold, though its text never shows."""
        later = [e for e in self.entries if e.key == key and e.revision > expected.revision and e.poison]
        return AccessLevel.PUBLIC if later else expected.level

    def _excused(self) -> set[str]:
        """Passages under a change that cannot be read: the embedder passed them over, the mender sends them again."""
        spoilt = {(entry.key, entry.revision) for entry in self.entries if entry.poison}
        return {
            f"{fault} {point_id}"
            for (_, key), manifest in self.model.world.manifests.items()
            if any(of == key and revision > manifest.revision for of, revision in spoilt)
            for point_id in manifest.passages
            for fault in ("no vector for", "not marked as embedded:")
        }

    def _say(
        self,
        document: str,
        change: DocumentChanged | None,
        token: str | None,
        *,
        bulk: bool = False,
        level: AccessLevel | None = None,
        poison: bool = False,
    ) -> None:
        key = DocumentKey("default", LOG, document)
        offset = self.model.publish(key, change, bulk=bulk)
        kind = Change.DELETE if change is None else change.change
        self.entries.append(Acknowledged(key, "", kind, 0, offset, token, level, poison))


@pytest.fixture(autouse=True)
def small_parts() -> Iterator[None]:
    """Every passage is a part of its own: a crash may fall between two of a revision."""
    with mock.patch.object(parts, "MAX_PART_BYTES", 64):
        yield


def try_histories(
    count: int, machine: type[RuleBasedStateMachine] = Histories, *, seed: int | None = None, shrink: bool = True
) -> None:
    """Raises what a history has broken. With a seed other ones are tried than without."""
    import hypothesis

    chosen = settings(
        max_examples=count,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        derandomize=seed is None,
        print_blob=False,
        phases=[Phase.generate, *([Phase.shrink] if shrink else [])],
        suppress_health_check=list(HealthCheck),
    )
    subject = machine if seed is None else hypothesis.seed(seed)(type(machine.__name__, (machine,), {}))
    run_state_machine_as_test(subject, settings=chosen)


@pytest.mark.slow
def test_every_history_ends_as_the_fold_of_the_log_and_embeds_nothing_twice() -> None:
    try_histories(HISTORIES)


class WithoutFence(Histories):
    """The teeth: any revision replaces any other."""

    def __init__(self) -> None:
        super().__init__()
        fenced = self.model.manifests._flip

        def flip(flip: Flip) -> bool:
            if (before := self.model.world.manifests.get((flip.generation_id, flip.key))) is not None:
                before.revision = -1
            return fenced(flip)

        self.model.manifests._flip = flip  # type: ignore[method-assign]


class WithoutGivingUp(Histories):
    """The teeth: parts that wait for parts are never given up."""

    def teardown(self) -> None:
        with mock.patch("consumers.leftovers.Leftovers.run", _nothing):
            super().teardown()


async def _nothing(_: object) -> None: ...


@pytest.mark.slow
@pytest.mark.parametrize("machine", [WithoutFence, WithoutGivingUp])
def test_histories_find_what_a_missing_protection_lets_through(machine: type[Histories]) -> None:
    with pytest.raises(AssertionError):
        try_histories(300, machine, shrink=False)


@pytest.mark.slow
def test_points_of_an_attempt_that_died_go_when_its_revision_is_refused() -> None:
    """It had planned with another manifest before it; nobody has to look for what it left."""
    history = Histories()
    history.prepare()
    history.edit(document="a.md", bulk=True, times=1)
    history.deliver_and_die(("chunker", "leat.documents.v1"), size=1, passes=1)
    history.edit(document="a.md", bulk=False, times=1)
    history.deliver(("chunker", "leat.bulk.v1"), size=1)
    history.deliver_and_die(("indexer", "leat.chunks.bulk.v1"), size=3, passes=1)
    assert any(found.startswith("orphan") for found in history.model.drift())
    with mock.patch.object(history.model, "_discard_orphans", _settled):
        history.teardown()


async def _settled() -> None: ...
