"""``leat down``: stop what `leat up --detach` started."""

import typer

from cli.options import DataOption, JsonOption

app = typer.Typer()

# `leat up` ends within 15 s; a little more for a machine under load.
_TIMEOUT_S = 20.0


@app.command()
def down(json_output: JsonOption = False, data: DataOption = None) -> None:
    """Stop the Leat of a data directory, and wait until it has ended. Exit code 1: none was running."""
    import os
    import signal
    import time

    from cli.exits import Refused
    from cli.output import print_json
    from infra.local.lock import is_locked, owner
    from infra.settings import load

    directory = load(data_dir=data).data_dir.absolute()
    pid = owner(directory)
    if not is_locked(directory) or not pid.isdigit():
        raise Refused(f"no Leat is running on {directory}")
    os.kill(int(pid), signal.SIGTERM)
    end = time.monotonic() + _TIMEOUT_S
    # The lock opens a moment before the process has ended.
    while is_locked(directory) or _runs(int(pid)):
        if time.monotonic() > end:
            raise Refused(f"process {pid} is still stopping after {_TIMEOUT_S:.0f} s, see {directory / 'logs'}")
        time.sleep(0.05)
    if json_output:
        print_json({"stopped": int(pid)})
    else:
        typer.echo("Leat has stopped")


def _runs(pid: int) -> bool:
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
