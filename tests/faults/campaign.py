"""Long runs with a report: ``python -m tests.faults.campaign --tier N --seed 7`` (``make faults``).

A seeded sample of crash point x fault x load, zombies, and a nemesis that hurts processes at random while changes flow;
then the same with a protection off, which must break invariants. No violation in n runs bounds their rate at 3/n.
"""

import argparse
import asyncio
import os
import platform
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM

from schemas.documents import Change
from tests.faults.harness import PIPELINE, Leat, eventually, installation
from tests.faults.invariants import Violation, check, committed_too_far
from tests.faults.orders import Fault
from tests.services import REPOSITORY, Services, running_services

POINTS = (
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
RUNS = {"PR": 13, "N": 100, "R": 840}
NEMESIS_S = {"PR": 20.0, "N": 120.0, "R": 900.0}
STOPPED_S = 4.0


@dataclass
class Report:
    """What was done and what came of it."""

    tier: str
    seed: int
    began: datetime
    command: str = "python -m tests.faults.campaign " + " ".join(sys.argv[1:])
    runs: Counter[str] = field(default_factory=Counter)
    violations: list[tuple[str, Violation]] = field(default_factory=list)
    teeth: dict[str, Counter[str]] = field(default_factory=dict)
    settled_s: list[float] = field(default_factory=list)
    changes: int = 0

    def note(self, run: str, found: list[Violation]) -> None:
        for violation in found:
            self.violations.append((run, violation))
            print(f"  {run}: {violation}", flush=True)

    def text(self) -> str:
        total = sum(self.runs.values())
        took_s = (datetime.now(UTC) - self.began).total_seconds()
        bound = f" (so the rate is below {3 / max(1, total):.3f} with 95 % confidence)"
        settled = sorted(self.settled_s) or [0.0]
        return "\n".join(
            [
                f"# Fault campaign, tier {self.tier}, {self.began:%Y-%m-%d}",
                "",
                f"- Machine: {platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}",
                f"- Began {self.began:%Y-%m-%d %H:%M} UTC, took {took_s / 60:.1f} minutes; seed {self.seed}",
                f"- Command: `{self.command}`",
                f"- Runs: {total} ({', '.join(f'{name} {count}' for name, count in sorted(self.runs.items()))})",
                f"- Acknowledged changes: {self.changes}",
                f"- Violations: {len(self.violations)}" + ("" if self.violations else bound),
                f"- Lag back to 0: median {settled[len(settled) // 2]:.1f} s, longest {settled[-1]:.1f} s",
                "",
                "## Teeth: the same with a protection off",
                "",
                "| protection off | violations |",
                "|---|---|",
                *(f"| {name} | {_listed(found)} |" for name, found in self.teeth.items()),
                "",
                "## Violations",
                "",
                *(f"- {run}: {violation}" for run, violation in self.violations),
                *([] if self.violations else ["None."]),
                "",
            ]
        )


def _listed(found: Counter[str]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in sorted(found.items())) or "**none: no teeth**"


async def campaign(tier: str, seed: int, runs: int, nemesis_s: float) -> Report:
    """Everything, on services of its own."""
    report = Report(tier, seed, datetime.now(UTC))
    with tempfile.TemporaryDirectory(prefix="leat-faults-") as name:
        folder = Path(name)
        for part in ("crashes", "nemesis", "commit-first", "no-fence"):
            (folder / part).mkdir()
        async with running_services(folder / "services") as services:
            print(f"{runs} crashes, seed {seed}", flush=True)
            await _crashes(services, folder / "crashes", report, random.Random(seed), runs)
            print(f"nemesis for {nemesis_s:.0f} s", flush=True)
            await _nemesis(services, folder / "nemesis", report, random.Random(seed + 1), nemesis_s)
            print("teeth", flush=True)
            await _teeth(services, folder, report)
    return report


async def _crashes(services: Services, folder: Path, report: Report, chance: random.Random, runs: int) -> None:
    async with installation(services, folder, seed=chance.randrange(2**32), kafka_session_timeout_ms=1500) as leat:
        leat.start("index")
        leat.start("pipeline")
        await leat.change("warm-up.md")
        await leat.settled()
        for number in range(runs):
            point = POINTS[number % len(POINTS)]
            fault = chance.choice(list(Fault))
            size = chance.choice([1, 20, 200])
            run = f"{number} {point} {fault.value} {size}"
            print(f"  {run}", flush=True)
            await leat.changes([(f"crash-{number}.md", Change.UPSERT, None, "")])
            await leat.settled()
            obeyed = leat.order("pipeline", point, 1, fault)
            # The edit of a settled document passes every point, whatever a burst is coalesced to.
            await leat.change(f"crash-{number}.md")
            if size > 1:
                await leat.burst(f"crash-{number}", size)
            await eventually(lambda: not obeyed.exists(), what=f"pass of {point}")  # noqa: B023
            await _after(leat, fault, run, report)
            report.settled_s.append(await leat.settled(within_s=60))
            report.note(run, await check(leat))
            report.runs[fault.value] += 1
            report.changes = len(leat.ledger.entries)
            if report.violations:
                return  # what follows would only repeat it


async def _after(leat: Leat, fault: Fault, run: str, report: Report) -> None:
    """Wake up who was stopped; start again who died. A bug that showed once may have been outlived: by halving."""
    running = leat.running["pipeline"]
    if fault is Fault.STOP:
        await asyncio.sleep(STOPPED_S)
        running.signal(SIGCONT)
        return
    if fault is Fault.RAISE:
        await asyncio.sleep(STOPPED_S)
        if running.process.is_alive():
            return
    await running.ended()
    report.note(run, await committed_too_far(leat))
    leat.restart("pipeline")


async def _nemesis(services: Services, folder: Path, report: Report, chance: random.Random, for_s: float) -> None:
    """Two pipelines and an index under random faults while changes flow; then all heals."""
    async with installation(services, folder, seed=chance.randrange(2**32), kafka_session_timeout_ms=1500) as leat:
        leat.start("index")
        leat.start("pipeline")
        leat.start("pipeline-2", PIPELINE)
        end, number = time.monotonic() + for_s, 0
        while time.monotonic() < end:
            await leat.burst(f"storm-{number}", 40)
            await _hurt(leat, chance, report)
            number += 1
        for name in list(leat.running):
            if not leat.running[name].process.is_alive():
                leat.restart(name)
        report.settled_s.append(await leat.settled(within_s=120))
        report.note("nemesis", await check(leat))
        report.changes += len(leat.ledger.entries)


async def _hurt(leat: Leat, chance: random.Random, report: Report) -> None:
    name = chance.choice(["pipeline", "pipeline-2", "index"])
    number = chance.choice([SIGKILL, SIGTERM, SIGSTOP])
    report.runs[f"nemesis {number.name}"] += 1
    if number is SIGSTOP:
        leat.running[name].signal(SIGSTOP)
        await asyncio.sleep(chance.uniform(0.5, STOPPED_S))
        leat.running[name].signal(SIGCONT)
    else:
        leat.running[name].signal(number)
        await leat.running[name].ended(within_s=20)
        await asyncio.sleep(chance.uniform(0, 2))
        leat.restart(name)
    await asyncio.sleep(chance.uniform(0, 1))


async def _teeth(services: Services, folder: Path, report: Report) -> None:
    async with installation(services, folder / "commit-first") as leat:
        leat.start("index")
        leat.start("pipeline", sabotage="commit_first")
        await leat.change("warm-up.md")
        await leat.settled()
        obeyed = leat.order("pipeline", "consumed")
        await leat.burst("lost", 40)
        await eventually(lambda: not obeyed.exists(), what="pass of consumed")
        await leat.running["pipeline"].ended()
        leat.restart("pipeline")
        await leat.settled()
        report.teeth["offsets are committed after the effects"] = _counted(await check(leat))
    async with installation(services, folder / "no-fence", kafka_session_timeout_ms=1500) as leat:
        from tests.faults.zombies import a_zombie_writes

        leat.start("index")
        await a_zombie_writes(leat, sabotage="no_fence")

        async def went_back() -> bool:
            return bool(await leat.pool.fetch("select 1 from went_back"))

        await eventually(went_back, what="manifest that went back")
        rows = await leat.pool.fetch("select 1 from went_back")
        report.teeth["the fence refuses old revisions"] = Counter({"V5": len(rows)})


def _counted(found: list[Violation]) -> Counter[str]:
    return Counter(violation.invariant for violation in found)


def main() -> int:
    """Run, write the report, print where it is. Exit code 1: an invariant broke, or a check has no teeth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tier", choices=sorted(RUNS), default="N")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, help="crashes (default: 13, 100 or 840 by tier)")
    parser.add_argument("--nemesis", type=float, help="seconds of random faults (default: 20, 120 or 900 by tier)")
    parser.add_argument("--reports", type=Path, default=REPOSITORY / "docs" / "reports")
    given = parser.parse_args()
    runs = given.runs or RUNS[given.tier]
    nemesis_s = NEMESIS_S[given.tier] if given.nemesis is None else given.nemesis
    report = asyncio.run(campaign(given.tier, given.seed, runs, nemesis_s))
    given.reports.mkdir(parents=True, exist_ok=True)
    file = given.reports / f"faults-{report.began:%Y-%m-%d}.md"
    file.write_text(report.text(), encoding="utf-8")
    print(report.text())
    print(f"written to {file}")
    return 1 if report.violations or not all(report.teeth.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
