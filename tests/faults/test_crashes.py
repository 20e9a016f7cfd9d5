"""A process may die between any two effects (check A02): nothing is lost, nothing doubled, nothing stale."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from schemas.access import AccessLevel
from schemas.documents import Change
from tests.faults.harness import Leat, eventually, installation
from tests.faults.invariants import check, committed_too_far, listed
from tests.faults.questions import ask, check_answers
from tests.services import Services

pytestmark = pytest.mark.slow

PIPELINE_POINTS = (
    "consumed",
    "admitted",
    "parsed",
    "chunks-sending",
    "chunks-sent",
    "fence-read",
    "points-written",
    "flipped",
    "outcomes-sent",
    "vectors-cached",
    "vectors-written",
    "garbage-swept",
    "before-commit",
)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def leat(services: Services, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Leat]:
    async with installation(services, tmp_path_factory.mktemp("crashes")) as running:
        running.start("index")
        running.start("pipeline")
        await running.change("warm-up.md")
        await running.settled()
        yield running


@pytest.mark.parametrize("size", [1, 200], ids=["one document", "burst of 200"])
@pytest.mark.parametrize("point", PIPELINE_POINTS)
async def test_process_killed_between_two_effects_loses_and_doubles_nothing(leat: Leat, point: str, size: int) -> None:
    name = f"{point}-{size}"
    await leat.change(f"{name}.md")
    await leat.settled()
    obeyed = leat.order("pipeline", point)
    # The edit of a settled document passes every point, whatever a burst is coalesced to.
    await leat.change(f"{name}.md")
    if size > 1:
        await leat.burst(name, size)
    await eventually(lambda: not obeyed.exists(), what=f"pass of {point}")
    assert await leat.running["pipeline"].ended() == -9
    assert not (broken := await committed_too_far(leat)), listed(broken)
    leat.restart("pipeline")
    await leat.settled()
    assert not (broken := await check(leat)), listed(broken)


@pytest.mark.parametrize("size", [1, 200], ids=["one question", "burst of 200"])
async def test_answerer_killed_in_the_middle_of_an_answer_leaves_one_end_and_no_gap(leat: Leat, size: int) -> None:
    """The fourteenth point. Another attempt begins, says so in the stream, and ends it (V9)."""
    await leat.change("answered.md", words="The walrus archive keeps its records for nine years.")
    await leat.settled()
    leat.start("answerer")
    warm = await ask(leat, ["What does the canary say?"])
    assert not (broken := await check_answers(leat, warm)), listed(broken)
    obeyed = leat.order("answerer", "answering", 1 if size == 1 else 50)
    questions = await ask(leat, [f"How long does the walrus archive keep record {number}?" for number in range(size)])
    await eventually(lambda: not obeyed.exists(), what="pass of answering")
    assert await leat.running["answerer"].ended() == -9
    leat.restart("answerer")
    assert not (broken := await check_answers(leat, questions)), listed(broken)
    await leat.kill("answerer")


async def test_deletion_is_carried_out_though_only_its_permissions_were_known_after_the_crash(leat: Leat) -> None:
    """Both are folded, the process dies, and on redelivery the deletion is old news behind the access change."""
    await leat.change("gone.md")
    await leat.settled()
    obeyed = leat.order("pipeline", "admitted")
    await leat.changes([("gone.md", Change.DELETE, None, ""), ("gone.md", Change.ACCESS, AccessLevel.RESTRICTED, "")])
    await eventually(lambda: not obeyed.exists(), what="pass of admitted")
    assert await leat.running["pipeline"].ended() == -9
    leat.restart("pipeline")
    await leat.settled()
    assert not (broken := await check(leat)), listed(broken)
    assert not await leat.pool.fetch("select 1 from passages where text like '%of gone.md never%'")


@pytest.mark.parametrize("bulk", [True, False], ids=["bulk", "interactive"])
async def test_parts_of_a_revision_that_will_never_be_whole_hold_up_nothing(
    services: Services, tmp_path_factory: pytest.TempPathFactory, bulk: bool
) -> None:
    """The chunker dies between two parts; before it comes back the other lane brings a newer revision."""
    many_parts = {"streams.parts:MAX_PART_BYTES": 300}
    async with installation(services, tmp_path_factory.mktemp("parts")) as leat:
        leat.start("index")
        leat.start("pipeline", ("embedder", "indexer", "recorder"))
        leat.start("chunker", ("chunker",), tuning=many_parts)
        await leat.change("warm-up.md")
        await leat.settled()
        obeyed = leat.order("chunker", "chunks-sending")
        await leat.changes([("torn.md", Change.UPSERT, None, "")], bulk=bulk)
        await eventually(lambda: not obeyed.exists(), what="pass of chunks-sending")
        assert await leat.running["chunker"].ended() == -9
        await leat.changes([("torn.md", Change.UPSERT, None, "")], bulk=not bulk)
        leat.restart("chunker")
        await leat.settled()
        assert not (broken := await check(leat)), listed(broken)


async def test_committing_before_the_effect_would_lose_changes(
    services: Services, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The teeth of this file: the same kill, with the offsets committed first."""
    async with installation(services, tmp_path_factory.mktemp("teeth")) as leat:
        leat.start("index")
        leat.start("pipeline", sabotage="commit_first")
        await leat.change("warm-up.md")
        await leat.settled()
        obeyed = leat.order("pipeline", "consumed")
        await leat.burst("lost", 40)
        await eventually(lambda: not obeyed.exists(), what="pass of consumed")
        assert await leat.running["pipeline"].ended() == -9
        assert {"V7"} <= {violation.invariant for violation in await committed_too_far(leat)}
        leat.restart("pipeline")
        await leat.settled()
        assert {"V1", "V8"} <= {violation.invariant for violation in await check(leat)}
