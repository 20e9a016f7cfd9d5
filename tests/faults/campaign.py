"""Long runs with a report: ``python -m tests.faults.campaign --only A08 C12 --scale 0.25 --seed 7`` (``make faults``).

Every check has a full length, that of the check catalogue, and is run at a share of it. No violation in n runs bounds
their rate at 3/n. Results are kept by day and check, so that a report may be put together from several calls.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from tests.faults import report
from tests.faults.arena import Arena, Result, Stopwatch
from tests.faults.checks.ambiguous import ambiguous
from tests.faults.checks.brokers import brokers
from tests.faults.checks.crashes import crashes
from tests.faults.checks.exactness import exactness
from tests.faults.checks.generations import generations
from tests.faults.checks.histories import histories
from tests.faults.checks.index_crash import index_crash
from tests.faults.checks.log_first import log_first
from tests.faults.checks.nemesis import nemesis
from tests.faults.checks.outages import outages
from tests.faults.checks.sleepers import sleepers
from tests.faults.checks.storm import storm
from tests.faults.checks.watchdog import watchdog
from tests.services import REPOSITORY, Services, running_services

SCALES = {"PR": 0.05, "N": 0.25, "R": 1.0}
"""Share of the full length, by tier; N fits into forty minutes on two idle cores."""


@dataclass(frozen=True)
class Check:
    title: str
    run: Callable[[Arena], Awaitable[None]]
    bound_s: float
    """Longest time that it may take at scale 1; a quarter of it whatever the scale."""


CHECKS = {
    "A02": Check("kill, stop and bug at every crash point", crashes, 3600),
    "A03": Check("duplicates and disorder", histories, 3600),
    "A05": Check("rebalance storm", storm, 1200),
    "A06": Check("zombie writers", sleepers, 2400),
    "A07": Check("consumers that stand still", watchdog, 1200),
    "A08": Check("brokers killed under load, one and three", brokers, 1800),
    "A09": Check("replies of the brokers lost", ambiguous, 1800),
    "A10": Check("the log first", log_first, 2400),
    "A15": Check("index process killed under writes", index_crash, 1800),
    "A16": Check("stage to stage exactness", exactness, 3600),
    "A17": Check("generation switched under questions", generations, 1800),
    "C06": Check("index, database and brokers away for two minutes", outages, 1800),
    "C12": Check("nemesis", nemesis, 3600),
}
OPEN_POINTS = (
    "A nemesis that hurts machines: power loss (fsync), a slow or failing disk of the brokers, a full disk below"
    " PostgreSQL or Kafka, packet loss.",
    "Clocks are skewed inside our processes (`datetime.now`, `time.time`), not for the whole process as libfaketime"
    " would.",
    "A record that was published again before the brokers were restored from an old copy keeps its old revision (A19).",
)


async def campaign(names: list[str], *, scale: float, seed: int, remark: str) -> list[Result]:
    """Run checks one after the other, on services that they share; what each finds is kept at once."""
    results = []
    with tempfile.TemporaryDirectory(prefix="leat-faults-", ignore_cleanup_errors=True) as folder:
        async with running_services(Path(folder) / "services") as services:
            for name in names:
                print(f"{name}: {CHECKS[name].title}, scale {scale:g}, seed {seed}", flush=True)
                result = await _run(name, services, Path(folder) / name, scale=scale, seed=seed)
                report.keep(result, scale=scale, seed=seed, remark=remark)
                print(f"{name}: {len(result.violations)} violations in {result.took_s:.0f} s", flush=True)
                results.append(result)
    return results


async def _run(name: str, services: Services, folder: Path, *, scale: float, seed: int) -> Result:
    check, clock = CHECKS[name], Stopwatch()
    result = Result(name, check.title)
    arena = Arena(services, folder, random.Random(f"{name} {seed}"), scale, result)
    try:
        async with asyncio.timeout(check.bound_s * max(0.25, scale)):
            await check.run(arena)
    except TimeoutError:
        arena.note(name, [f"not over after {clock.s:.0f} s"])
    except AssertionError as error:
        # A wait without an end is a finding: something did not happen that must.
        traceback.print_exc()
        arena.note(name, [str(error) or repr(error)])
    result.took_s = clock.s
    return result


def main() -> int:
    """Run, write the report, print where it is. Exit code 1: an invariant broke, or a check has no teeth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tier", choices=sorted(SCALES), default="N")
    parser.add_argument("--only", nargs="+", choices=sorted(CHECKS), metavar="CHECK", help=", ".join(CHECKS))
    parser.add_argument("--scale", type=float, help="share of the full length (default by tier: 0.05, 0.25 or 1)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--remark", default="", help="a sentence for the report, such as who else used the machine")
    parser.add_argument("--reports", type=Path, default=REPOSITORY / "docs" / "reports")
    given = parser.parse_args()
    scale = SCALES[given.tier] if given.scale is None else given.scale
    results = asyncio.run(campaign(given.only or list(CHECKS), scale=scale, seed=given.seed, remark=given.remark))
    titles = {name: check.title for name, check in CHECKS.items()}
    file = report.write(given.reports, titles=titles, open_points=OPEN_POINTS)
    print(file.read_text(encoding="utf-8"))
    print(f"written to {file}")
    toothless = [name for result in results for name, found in result.teeth.items() if not any(found.values())]
    toothless += [result.check for result in results if not result.teeth]
    for name in toothless:
        print(f"no teeth: {name}")
    return 1 if toothless or any(result.violations for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
