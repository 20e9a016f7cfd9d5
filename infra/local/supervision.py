"""Starts a process again when it dies, with growing pauses, and says so."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from infra.local.process import Child
from streams.errors import LeatError

log = logging.getLogger(__name__)

# The first restart comes at once, so that a killed process is hardly missed; one that dies again and again must not
# eat the machine. Who lived this long begins anew.
_PAUSES_S = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_LIVED_S = 60.0
_LOOK_EVERY_S = 1.0


class Unit(Protocol):
    """A process that can be started again."""

    name: str
    child: Child | None

    async def start(self) -> None:
        """Return when it serves (dependencies) or runs (ours)."""
        ...

    async def stop(self) -> None: ...


async def supervise(
    unit: Unit,
    *,
    say: Callable[[str], None],
    changed: Callable[[], None],
    hangs: Callable[[], bool] = lambda: False,
) -> None:
    """Keep a started unit alive until cancelled. ``changed`` is called after each restart (another process id).

    A unit of which ``hangs`` says so is ended, and started again like one that died.
    """
    deaths = 0
    while True:
        assert unit.child is not None
        started = time.monotonic()
        code = await _end(unit.child, hangs)
        deaths = 0 if time.monotonic() - started > _LIVED_S else deaths
        # What the dead one had started goes too.
        await unit.stop()
        say(f"{unit.name} {_how(code)}; starting it again")
        log.warning("process_died", extra={"unit": unit.name, "exit_code": code})
        deaths = await _start_again(unit, deaths, say)
        changed()
        log.info("process_restarted", extra={"unit": unit.name, "pid": unit.child.pid})


async def _start_again(unit: Unit, deaths: int, say: Callable[[str], None]) -> int:
    """Start it, however often it takes; returns how many pauses it has used up."""
    while True:
        await asyncio.sleep(_PAUSES_S[min(deaths, len(_PAUSES_S) - 1)])
        deaths += 1
        try:
            await unit.start()
            return deaths
        except (LeatError, OSError) as error:
            say(f"{unit.name} does not start: {error}; trying again")
            log.error("process_not_started", extra={"unit": unit.name, "cause": str(error)})


async def _end(child: Child, hangs: Callable[[], bool]) -> int | None:
    """Wait until it ends by itself, or hangs; its exit code, None for one that hangs."""
    while True:
        with suppress(TimeoutError):
            return await asyncio.wait_for(child.wait(), _LOOK_EVERY_S)
        if hangs():
            return None


def _how(code: int | None) -> str:
    if code is None:
        return "does not move"
    return f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
