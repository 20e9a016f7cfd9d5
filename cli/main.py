"""The ``leat`` command: finds the command's module, runs it, and turns what went wrong into an exit code.

How to add a command: write ``cli/NAME.py`` with ``app = typer.Typer()`` and one ``@app.command()`` (a plain command)
or several (a group: ``leat dead-letters list``), and add a row to ``COMMANDS``. The module is imported only when its
command runs, so ``leat run index`` does not pay for the others; keep imports of heavy libraries inside functions
all the same. Take ``--json`` and ``--data`` from ``cli/options.py``. To end with a message and a code, raise
``cli.exits.Refused``; ``Unavailable`` ends as 3, other errors of ours as 1; ``raise typer.Exit(1)`` says
"no" after output of your own. Everything else is a bug: one line on stderr, the traceback in a file, exit code 70.
"""

import importlib
import sys
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("cli.up", "Start everything on this machine, watch a folder, and serve."),
    "down": ("cli.down", "Stop what `leat up --detach` started."),
    "doctor": ("cli.doctor", "Say what is here, what is missing, and what to do."),
    "run": ("cli.run", "Run one or several roles against given services."),
    "ask": ("cli.ask", "Ask a question; the answer streams in with citations."),
    "search": ("cli.search", "Search passages."),
    "changes": ("cli.changes", "What was added, changed and removed about something since a time."),
    "ingest": ("cli.ingest", "Publish files or folders once."),
    "erase": ("cli.erase", "Forget a document altogether: history, blobs and answers included."),
    "watch": ("cli.watch", "Publish changes of a folder as they happen."),
    "status": ("cli.status", "Documents, lag, freshness."),
    "verify": ("cli.verify", "Check that the index equals the log."),
    "dead-letters": ("cli.dead_letters", "List, show and replay records that could not be processed."),
    "collections": ("cli.collections", "Collections, and what serves them: list, create, change, import."),
    "reindex": ("cli.reindex", "Build a new generation of a collection from the log, without downtime."),
    "generations": ("cli.generations", "The index builds of collections: list, compare, switch, retire."),
    "replay": ("cli.replay", "Drive a stretch of the log through the pipeline once more, for repair."),
    "jobs": ("cli.jobs", "Reindexes, replays, directory ingestions: list, watch, pause, cancel."),
    "conversations": ("cli.conversations", "List, show and delete your conversations."),
    "demo": ("cli.demo", "Add, edit, delete, ask and kill a process, with measured times."),
    "schema": ("cli.schema", "Print the schemas of events and of the API."),
    "eval": ("cli.eval", "Measure retrieval quality on labelled questions."),
}
"""Command name to (module with ``app``, one line of help)."""


class LazyCommands(TyperGroup):
    """Lists commands from the table and imports a module only to run it."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A stand-in that knows name and help: enough for ``--help`` and for suggestions."""
        if cmd_name not in COMMANDS:
            return None
        return TyperCommand(cmd_name, help=COMMANDS[cmd_name][1])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in COMMANDS:
            return args[0], _load(args[0]), args[1:]
        return super().resolve_command(ctx, args)


def _load(name: str) -> Any:
    command = typer.main.get_command(importlib.import_module(COMMANDS[name][0]).app)
    command.name = name
    return command


app = typer.Typer(
    cls=LazyCommands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, name="leat"
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"leat {version('leat')}")
        raise typer.Exit


@app.callback()
def leat(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Say the version."),
) -> None:
    """Answers, with citations, over documents that keep changing."""


def main() -> None:
    """Entry of the ``leat`` script. Exit codes: 0 fine, 1 no, 2 usage, 3 not reachable, 70 our own bug."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except Exception as error:  # noqa: BLE001 - the outermost frame: every error becomes a line and an exit code
        from cli.exits import end_with

        sys.exit(end_with(error))


if __name__ == "__main__":
    main()
