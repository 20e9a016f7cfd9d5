"""Orders for a process under test: where it is to die. They lie in a file, so that they may change while it runs."""

import os
import signal
import time
from collections import Counter
from enum import StrEnum
from pathlib import Path

from streams.crash import POINTS


class Fault(StrEnum):
    """What happens at a crash point."""

    KILL = "kill"
    """SIGKILL: nothing more is done, nothing is closed."""
    STOP = "stop"
    """SIGSTOP: the process sleeps until somebody wakes it, long after others have taken over."""
    RAISE = "raise"
    """A bug of ours: an exception that nobody expects."""
    BLOCK = "block"
    """The event loop does nothing for as long as the file ``.seconds`` beside the orders says, then goes on."""


class Orders:
    """Watches crash points and obeys the file: ``point nth fault``. An order is carried out once."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._order = ""
        self._passes: Counter[str] = Counter()

    def __call__(self, point: str) -> None:
        try:
            order = self._file.read_text()
        except FileNotFoundError:
            return
        if order != self._order:
            self._order = order
            self._passes.clear()
        wanted, nth, fault = order.split()[:3]
        if point != wanted:
            return
        self._passes[point] += 1
        if self._passes[point] == int(nth):
            self._file.unlink()
            if Fault(fault) is Fault.BLOCK:
                time.sleep(float(self._file.with_suffix(".seconds").read_text()))
            else:
                _suffer(Fault(fault))


def give(file: Path, point: str, nth: int, fault: Fault, *, serial: int) -> None:
    """Have the process behind ``file`` suffer ``fault`` when it passes ``point`` for the nth time from now on."""
    assert point in POINTS, f"no crash point is named {point}"
    new = file.with_suffix(".new")
    new.write_text(f"{point} {nth} {fault} {serial}")
    new.replace(file)


def _suffer(fault: Fault) -> None:
    if fault is Fault.RAISE:
        raise ZeroDivisionError("an order of the fault harness")
    os.kill(os.getpid(), signal.SIGKILL if fault is Fault.KILL else signal.SIGSTOP)
