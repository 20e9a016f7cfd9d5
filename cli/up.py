"""``leat up``: start everything on this machine, watch a folder, and serve."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import DataOption

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from infra.settings import Settings

app = typer.Typer()


@app.command()
def up(
    docs: Annotated[
        Path | None, typer.Option(help="The folder to watch (default: docs/ here, if there is one).", file_okay=False)
    ] = None,
    data: DataOption = None,
    host: Annotated[str | None, typer.Option(help="Address of the API.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the API (default: 8765 or the next free one).")] = None,
    replicas: Annotated[str, typer.Option(help="More processes of a role, for example chunker=2,api=2.")] = "",
    detach: Annotated[bool, typer.Option("--detach", help="Return when it serves; `leat down` ends it.")] = False,
) -> None:
    """Start Kafka, PostgreSQL and Redis (those without a given address), the pipeline and the API; serve until Ctrl-C.

    The last line is "Leat is ready at URL". A process that dies is started again.
    """
    from cli.exits import USAGE, Refused
    from infra.settings import load

    settings = load(data_dir=data, host=host, port=port)
    if docs is not None and not docs.is_dir():
        raise Refused(f"there is no folder {docs}: give one that exists with --docs", USAGE)
    if detach:
        _detach(settings)
        return
    _serve(settings, docs, replicas)


def _serve(settings: "Settings", docs: Path | None, replicas: str) -> None:
    import asyncio

    from infra.local.launcher import UpOptions, up
    from infra.local.progress import progress_for_this_terminal
    from infra.telemetry import configure_logging_to

    configure_logging_to(settings.data_dir.absolute() / "logs" / "launcher.log", "launcher", settings.log_level)
    here = Path("docs").absolute()
    folder = docs.absolute() if docs is not None else here if here.is_dir() else None
    options = UpOptions(docs=folder, replicas=_parse_replicas(replicas))
    asyncio.run(up(settings, options, progress_for_this_terminal()))


def _parse_replicas(text: str) -> dict[str, int]:
    from cli.exits import USAGE, Refused
    from infra.local.roles import plan

    try:
        pairs = [part.split("=") for part in text.split(",") if part]
        replicas = {role.strip(): int(count) for role, count in pairs}
        plan(replicas)
    except ValueError as error:
        raise Refused(f"--replicas '{text}': {error}; want role=count,…", USAGE) from error
    return replicas


def _detach(settings: "Settings") -> None:
    """Start the same command in a session of its own and wait for its last word."""
    import subprocess
    import sys

    from cli.exits import BUG, Refused

    log_file = settings.data_dir.absolute() / "logs" / "up.log"
    log_file.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "cli.main", *(part for part in sys.argv[1:] if part != "--detach")]
    with log_file.open("wb") as output:
        child = subprocess.Popen(  # noqa: S603 - our own command
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    for line in _follow(log_file, child):
        typer.echo(line)
        if line.startswith("Leat is ready at "):
            return
    code = child.wait()
    raise Refused(f"it did not start, see {log_file}", code if 0 < code < BUG else BUG)


def _follow(path: Path, child: "subprocess.Popen[bytes]") -> "Iterator[str]":
    """The lines of its output, as they come, until it ends."""
    import time

    with path.open(encoding="utf-8", errors="replace") as file:
        while True:
            line = file.readline()
            if line.endswith("\n"):
                yield line.rstrip("\n")
            elif child.poll() is not None:
                return
            else:
                time.sleep(0.05)
