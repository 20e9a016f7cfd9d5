"""``leat run ROLE…``: one or several roles in one process, against given services. The unit of a container."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import DataOption

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from infra.settings import Settings

app = typer.Typer()

CONSUMERS = ("chunker", "embedder", "indexer", "recorder", "answerer", "jobs")
SERVERS = ("index", "api", "watcher")
_ALIASES = {"pipeline": ("chunker", "embedder", "indexer", "recorder", "jobs")}


@app.command()
def run(
    roles: Annotated[
        list[str], typer.Argument(help=f"{', '.join((*SERVERS, *CONSUMERS))}; pipeline: all but the answerer.")
    ],
    host: Annotated[str | None, typer.Option(help="Address of the API.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the API.")] = None,
    docs: Annotated[Path | None, typer.Option(help="Folder of the watcher.", file_okay=False)] = None,
    when: Annotated[Path | None, typer.Option(help="Load everything, then wait until this file is there.")] = None,
    data: DataOption = None,
) -> None:
    """Run roles until SIGTERM or SIGINT. Consumers may share a process; index, api and watcher have their own."""
    from cli.exits import USAGE, Refused
    from infra.settings import load
    from infra.telemetry import configure_logging

    wanted = _resolve(roles)
    settings = load(host=host, port=port, data_dir=data)
    configure_logging("+".join(roles), settings.log_level)
    if wanted == ["watcher"] and docs is None:
        raise Refused("the watcher needs a folder: --docs DIR", USAGE)
    runner = _load(wanted, docs)
    _wait_for(when)
    # Once more: FastStream sets up its logger when it is imported.
    configure_logging("+".join(roles), settings.log_level)
    runner(settings)


def _resolve(roles: list[str]) -> list[str]:
    from cli.exits import USAGE, Refused

    wanted = list(dict.fromkeys(resolved for role in roles for resolved in _ALIASES.get(role, (role,))))
    if unknown := [role for role in wanted if role not in (*SERVERS, *CONSUMERS)]:
        raise Refused(f"unknown role '{unknown[0]}'; there are {', '.join((*SERVERS, *CONSUMERS))}, pipeline", USAGE)
    if len(wanted) > 1 and (alone := [role for role in wanted if role in SERVERS]):
        raise Refused(f"'{alone[0]}' runs in a process of its own", USAGE)
    return wanted


def _load(roles: list[str], docs: Path | None) -> "Callable[[Settings], None]":
    """Import what the roles need; returns what runs them."""
    import asyncio

    match roles:
        case ["index"]:
            import infra.index.edge  # noqa: F401 - loads the engine before the gate opens
            from infra.index import serve_index

            return lambda settings: asyncio.run(_until_signal(serve_index(settings)))
        case ["watcher"]:
            from infra.files.publishing import watch_folder

            assert docs is not None
            return lambda settings: asyncio.run(_until_signal(watch_folder(settings, root=docs)))
        case ["api"]:
            from api.app import serve
            from infra.event_loop import run_on_uvloop

            return lambda settings: run_on_uvloop(serve(settings))
        case _:
            from consumers.app import run as run_consumers
            from infra.event_loop import run_on_uvloop

            return lambda settings: run_on_uvloop(run_consumers(roles, settings))


def _wait_for(file: Path | None) -> None:
    """The launcher opens the gate when topics and tables are there; it ends us if that never happens."""
    import time

    while file is not None and not file.exists():
        time.sleep(0.02)


async def _until_signal(work: "Coroutine[None, None, None]") -> None:
    """Run a server that ends by being cancelled."""
    import asyncio
    import signal
    from contextlib import suppress

    task = asyncio.ensure_future(work)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await task
