"""What a long check gets, and what it hands back for the report."""

import random
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.invariants import Violation
from tests.services import Services


@dataclass
class Result:
    """What came of one check."""

    check: str
    title: str
    runs: dict[str, int] = field(default_factory=dict)
    """By kind of fault; their sum is n of the bound 3/n."""
    violations: list[str] = field(default_factory=list)
    teeth: dict[str, dict[str, int]] = field(default_factory=dict)
    """Violations by invariant with a protection off: there must be some."""
    figures: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """What was left out, and why."""
    acknowledged: int = 0
    took_s: float = 0.0


@dataclass
class Arena:
    """Shared services, a folder, chance, and how much of the full length is wanted."""

    services: Services
    folder: Path
    random: random.Random
    scale: float
    result: Result

    def place(self, name: str) -> Path:
        """A folder of its own for one part of the check."""
        folder = self.folder / name
        folder.mkdir(parents=True)
        return folder

    def seed(self) -> int:
        return self.random.randrange(2**32)

    def times(self, full: int, *, least: int = 1) -> int:
        """So many of ``full`` as the scale allows."""
        return min(full, max(least, round(full * self.scale)))

    def seconds(self, full: float, *, least: float) -> float:
        return min(full, max(least, full * self.scale))

    def say(self, text: str) -> None:
        print(f"  {text}", flush=True)

    def did(self, kind: str, times: int = 1) -> None:
        self.result.runs[kind] = self.result.runs.get(kind, 0) + times

    def note(self, run: str, found: Iterable[Violation | str]) -> bool:
        """Keep violations; whether there were any."""
        lines = Counter(f"{run}: {violation}" for violation in found)
        for line, times in lines.items():
            line += f" ({times} times)" if times > 1 else ""
            self.say(line)
            self.result.violations.append(line)
        return bool(lines)

    def bites(self, protection: str, found: Iterable[Violation] | Mapping[str, int]) -> None:
        """What happened with a protection off."""
        counted = found if isinstance(found, Mapping) else Counter(violation.invariant for violation in found)
        self.result.teeth[protection] = dict(counted)
        self.say(f"{protection} is off: {dict(counted) or 'nothing'}")


def longest(seconds: Iterable[float]) -> str:
    """Median and longest of some times, for people."""
    ordered = sorted(seconds) or [0.0]
    return f"median {ordered[len(ordered) // 2]:.1f} s, longest {ordered[-1]:.1f} s (n = {len(ordered)})"


class Stopwatch:
    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def s(self) -> float:
        return time.monotonic() - self._began
