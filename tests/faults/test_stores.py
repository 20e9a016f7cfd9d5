"""Writes to index and database that fail, half take effect, or take effect unanswered (A13): all is mended."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
import pytest_asyncio

from tests.faults.harness import Leat, eventually, installation
from tests.faults.invariants import check, listed
from tests.faults.sabotage import STORE_FAULTS
from tests.services import Services

pytestmark = pytest.mark.slow

TIMES = 2
REPAIRING = {"consumers.reconciler:OVERDUE_VECTOR_S": 1.0}


@dataclass
class Faulty:
    leat: Leat
    orders: Path


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def faulty(services: Services, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Faulty]:
    folder = tmp_path_factory.mktemp("stores")
    orders = folder / "store-orders"
    async with installation(services, folder) as leat:
        leat.start("index")
        leat.start("pipeline", sabotage=f"failing_stores:{orders}", tuning=REPAIRING)
        await leat.change("warm-up.md")
        await leat.settled()
        yield Faulty(leat, orders)


@pytest.mark.parametrize("fault", STORE_FAULTS)
async def test_write_that_fails_on_its_way_leaves_no_trace_that_is_not_mended(faulty: Faulty, fault: str) -> None:
    leat = faulty.leat
    faulty.orders.write_text(f"{fault} {TIMES}")
    # Edits as well as new documents: only those have old points to delete.
    for _ in range(2):
        await leat.burst(fault, 24)
        await leat.settled()
    await eventually(lambda: not faulty.orders.exists(), what=f"{fault}, {TIMES} times")
    await leat.settled()

    async def whole() -> bool:
        return not await check(leat)

    try:
        await eventually(whole, within_s=60, what="health", pause_s=0.5)
    except AssertionError:
        raise AssertionError(listed(await check(leat))) from None
    await nothing_to_repair(leat)


async def nothing_to_repair(leat: Leat) -> None:
    """A round of the reconciler that finds nothing, and another that repairs nothing: what is mended stays mended."""

    async def quiet_round_after(at: datetime) -> bool:
        found, _, checked_at = await _drift(leat)
        return checked_at > at and found == 0

    _, _, at = await _drift(leat)
    await eventually(lambda: quiet_round_after(at), what="round without a finding", pause_s=0.1)
    _, repaired, at = await _drift(leat)
    await eventually(lambda: quiet_round_after(at), what="another round", pause_s=0.1)
    assert (await _drift(leat))[1] == repaired


async def _drift(leat: Leat) -> tuple[int, int, datetime]:
    """Found in the last round, repaired since the beginning, when the last round was."""
    [row] = await leat.pool.fetch(
        "select sum(found) as found, sum(repaired_total) as repaired, max(checked_at) as at from drift_reports"
    )
    return row["found"], row["repaired"], row["at"]
