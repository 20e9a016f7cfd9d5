"""What a person sees while something slow goes on: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Step(Protocol):
    """A slow step on its way."""

    def advance(self, done: int, total: int | None = None) -> None: ...


class Progress(Protocol):
    """Where steps are shown."""

    def say(self, line: str) -> None: ...

    def step(self, what: str, total: int | None = None) -> AbstractContextManager[Step]: ...


class _Quiet:
    def advance(self, done: int, total: int | None = None) -> None:
        return None


class Silent:
    """Shows nothing: for tests and ``--json``."""

    def say(self, line: str) -> None:
        return None

    @contextmanager
    def step(self, what: str, total: int | None = None) -> Iterator[Step]:
        yield _Quiet()


class Lines:
    """One line when a step begins, one when it took long."""

    def say(self, line: str) -> None:
        print(line, flush=True)

    @contextmanager
    def step(self, what: str, total: int | None = None) -> Iterator[Step]:
        self.say(f"{what} …")
        started = time.monotonic()
        yield _Quiet()
        took_s = time.monotonic() - started
        if took_s > 2:
            self.say(f"{what}: done in {took_s:.1f} s")


class Bars:
    """A spinner, or a bar when the total is known, that gives way to one line."""

    def say(self, line: str) -> None:
        print(line, flush=True)

    @contextmanager
    def step(self, what: str, total: int | None = None) -> Iterator[Step]:
        from rich.progress import BarColumn, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
        with RichProgress(*columns, TimeElapsedColumn(), transient=True) as bars:
            task = bars.add_task(what, total=total)

            class _Bar:
                def advance(self, done: int, total: int | None = None) -> None:
                    bars.update(task, completed=done, total=total)

            yield _Bar()


def progress_for_this_terminal() -> "Bars | Lines":
    """Bars where someone watches, lines in a log."""
    return Bars() if sys.stdout.isatty() else Lines()
