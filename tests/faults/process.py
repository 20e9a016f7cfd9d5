"""What runs inside a process under test: roles as ``leat run`` runs them, with orders, tunings and sabotage.

Processes are forked from a server that has imported everything once: a restart takes a quarter of a second instead of
seconds, so a check can afford dozens.
"""

import asyncio
import ctypes
import faulthandler
import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from infra.settings import Settings
from tests.faults.orders import Orders

_PRELOAD = ["consumers.app", "infra.index.edge", "infra.sparse", "api.app", "infra.verifying", "tests.faults.process"]
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Launch:
    """What one process is to do."""

    roles: tuple[str, ...]
    settings: Settings
    log_file: Path
    orders: Path
    tuning: Mapping[str, Any] = field(default_factory=dict)
    """``module:NAME`` to the value that the constant has in this process: waits of minutes become seconds."""
    sabotage: str | None = None
    """A protection in ``tests.faults.sabotage`` that is off in this process: ``name`` or ``name:argument``."""


def start(launch: Launch) -> ForkServerProcess:
    """Start a process in a group of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    process = context.Process(target=_run, args=(launch,), daemon=True)
    process.start()
    return process


def _run(launch: Launch) -> None:
    os.setpgid(0, 0)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    with launch.log_file.open("ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    faulthandler.enable()
    _prepare(launch)
    from infra.telemetry import configure_logging

    configure_logging("+".join(launch.roles), launch.settings.log_level)
    os._exit(_serve(launch))


def _prepare(launch: Launch) -> None:
    from streams import crash
    from tests.faults import sabotage

    crash.watch(Orders(launch.orders))
    for name, value in launch.tuning.items():
        path, _, constant = name.partition(":")
        module = importlib.import_module(path)
        getattr(module, constant)  # one that has moved fails here: set, it would tune nothing
        setattr(module, constant, value)
    if launch.sabotage:
        name, _, argument = launch.sabotage.partition(":")
        getattr(sabotage, name)(*([argument] if argument else []))


def _serve(launch: Launch) -> int:
    from consumers.app import StoppedByBug
    from infra.event_loop import run_on_uvloop
    from streams.errors import LeatError

    try:
        match launch.roles:
            case ["index"]:
                from infra.index import serve_index

                asyncio.run(_telling(_until_signal(serve_index(launch.settings))))
            case ["api"]:
                from api.app import serve

                run_on_uvloop(_telling(serve(launch.settings)))
            case _:
                from consumers.app import run

                run_on_uvloop(_telling(run(launch.roles, launch.settings)))
    except StoppedByBug:
        return 70
    except LeatError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 3
    return 0


async def _telling(work: Coroutine[None, None, None]) -> None:
    """SIGUSR1 prints what every task waits for into the log: how to find out why a process stands still."""

    def tell() -> None:
        for task in asyncio.all_tasks():
            task.print_stack(limit=12)

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, tell)
    await work


async def _until_signal(work: Coroutine[None, None, None]) -> None:
    task = asyncio.ensure_future(work)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await task
