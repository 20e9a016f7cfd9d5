"""The report of a day: every check's last result, kept beside the tools, written as Markdown."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.faults.arena import Result
from tests.services import REPOSITORY

_KEPT = REPOSITORY / ".leat" / "faults"


def keep(result: Result, *, scale: float, seed: int, remark: str) -> None:
    """Remember a result; a later one of the same check and day takes its place."""
    _KEPT.mkdir(parents=True, exist_ok=True)
    kept = {
        **asdict(result),
        "scale": scale,
        "seed": seed,
        "remark": remark,
        "commit": _commit(),
        "ended_at": f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
    }
    (_KEPT / f"{datetime.now(UTC):%Y-%m-%d}-{result.check}.json").write_text(json.dumps(kept), encoding="utf-8")


def write(folder: Path, *, titles: Mapping[str, str], open_points: Sequence[str]) -> Path:
    """The report of today's results. ``titles``: every check that there is, for what was not tried."""
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    results = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(_KEPT.glob(f"{today}-*.json"))]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"faults-{today}.md"
    file.write_text(_text(today, results, titles, open_points), encoding="utf-8")
    return file


def _text(day: str, results: Sequence[Mapping[str, Any]], titles: Mapping[str, str], open_points: Sequence[str]) -> str:
    runs = sum(sum(result["runs"].values()) for result in results)
    violations = [f"{result['check']} {violation}" for result in results for violation in result["violations"]]
    bound = f"; so their rate is below {3 / max(1, runs):.4f} per run with 95 % confidence" if not violations else ""
    tried = {result["check"] for result in results}
    return "\n".join(
        [
            f"# Fault campaign, {day}",
            "",
            f"- Machine: {platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}",
            f"- Took {sum(result['took_s'] for result in results) / 60:.1f} minutes; {runs} faults and runs,"
            f" {sum(result['acknowledged'] for result in results)} acknowledged changes and questions",
            f"- Violations: {len(violations)}{bound}",
            "- Command: `python -m tests.faults.campaign --only CHECK --scale SCALE --seed SEED`; scale 1 is the full"
            " length of the check catalogue",
            *(f"- {remark}" for remark in sorted({result["remark"] for result in results} - {""})),
            "",
            "| check | what | scale | seed | n | violations | bound 3/n | minutes | commit |",
            "|---|---|---|---|---|---|---|---|---|",
            *(_row(result) for result in results),
            "",
            "## What was done, and figures",
            "",
            *(line for result in results for line in _details(result)),
            "## Teeth: the same with a protection off",
            "",
            "| check | protection off | violations |",
            "|---|---|---|",
            *(
                f"| {result['check']} | {name} | {_listed(found)} |"
                for result in results
                for name, found in result["teeth"].items()
            ),
            "",
            "## Violations",
            "",
            *(f"- {violation}" for violation in violations),
            *([] if violations else ["None."]),
            "",
            "## Not tried, and open",
            "",
            *(f"- {check} was not run: {title}" for check, title in titles.items() if check not in tried),
            *(f"- {result['check']}: {note}" for result in results for note in dict.fromkeys(result["notes"])),
            *(f"- {point}" for point in open_points),
            "",
        ]
    )


def _row(result: Mapping[str, Any]) -> str:
    n, found = sum(result["runs"].values()), len(result["violations"])
    bound = "" if found or not n else f"{3 / n:.3f}"
    return (
        f"| {result['check']} | {result['title']} | {result['scale']:g} | {result['seed']} | {n} | {found} | {bound}"
        f" | {result['took_s'] / 60:.1f} | {result['commit']} |"
    )


def _details(result: Mapping[str, Any]) -> list[str]:
    done = ", ".join(f"{kind} {times}" for kind, times in sorted(result["runs"].items()))
    figures = [f"  - {name}: {figure}" for name, figure in result["figures"].items()]
    changes = f"  - acknowledged: {result['acknowledged']}"
    return [f"- **{result['check']}** ({result['ended_at']} UTC): {done or 'nothing'}", changes, *figures, ""]


def _listed(found: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in sorted(found.items()) if count) or "**none: no teeth**"


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty=+"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
