"""``leat jobs``: work that takes longer than a request; listed, watched, paused, cancelled."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import DataOption, JsonOption

if TYPE_CHECKING:
    from cli.client import Client

app = typer.Typer(no_args_is_help=True, help="Reindexes, replays and directory ingestions.")

_PATH = "/api/v1/jobs"
_POLL_S = 0.3
FINAL = ("COMPLETED", "FAILED", "CANCELLED")
JobArgument = Annotated[str, typer.Argument(help="As listed.")]


@app.command("list")
def list_jobs(
    collection: Annotated[str | None, typer.Option(help="One collection only.")] = None,
    status: Annotated[str | None, typer.Option(help="PENDING, PROCESSING, COMPLETED, FAILED or CANCELLED.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many, the newest first.")] = 50,
    json_output: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Jobs of the last 24 hours, and those that are not over."""
    from cli.client import Client
    from cli.connection import connect
    from cli.output import console, print_json, table

    with Client(connect(data)) as client:
        found = client.get(_PATH, collection=collection, status=status, limit=limit)
    if json_output:
        print_json(found)
        return
    rows = [
        (job["job_id"], job["type"], job["collection"], _state(job), f"{job['progress']['percentage']:.0f} %")
        for job in found["jobs"]
    ]
    console().print(table(("id", "type", "collection", "status", "done"), rows))


@app.command()
def show(job_id: JobArgument, json_output: JsonOption = False, data: DataOption = None) -> None:
    """One job with its progress and its result."""
    _act("GET", job_id, "", json_output, data)


@app.command()
def pause(job_id: JobArgument, json_output: JsonOption = False, data: DataOption = None) -> None:
    """Hold a job; it keeps what it has done."""
    _act("POST", job_id, "/pause", json_output, data)


@app.command()
def resume(job_id: JobArgument, json_output: JsonOption = False, data: DataOption = None) -> None:
    """Let a paused job go on."""
    _act("POST", job_id, "/resume", json_output, data)


@app.command()
def cancel(job_id: JobArgument, json_output: JsonOption = False, data: DataOption = None) -> None:
    """End a job; a reindex that is cancelled leaves nothing behind."""
    _act("DELETE", job_id, "", json_output, data)


@app.command()
def watch(job_id: JobArgument, json_output: JsonOption = False, data: DataOption = None) -> None:
    """Follow a job to its end. Exit code 1: it failed or was cancelled."""
    from cli.client import Client
    from cli.connection import connect

    with Client(connect(data)) as client:
        end_with(follow(client, client.get(f"{_PATH}/{job_id}"), quiet=json_output), json_output)


def follow(client: "Client", job: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    """Show a job's progress until it is over; returns how it ended. Ctrl-C ends the watching, not the job."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:>12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[more]}"),
    )
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as bars:
        bar = bars.add_task("waiting", total=None, more="")
        while True:
            progress = job["progress"]
            bars.update(
                bar,
                description="paused" if job["paused"] else job["phase"] or job["status"].lower(),
                total=progress["total_files"] or None,
                completed=progress["processed_files"],
                more=_more(progress["details"]),
            )
            if job["status"] in FINAL:
                return job
            time.sleep(_POLL_S)
            job = client.get(f"{_PATH}/{job['job_id']}")


def end_with(job: dict[str, Any], json_output: bool) -> None:
    """Print how a job ended. Raises ``typer.Exit``: not well."""
    from cli.output import print_json

    if json_output:
        print_json(job)
    else:
        typer.echo(f"{job['type']} {job['status'].lower()}" + (f": {job['error']}" if job["error"] else ""))
    if job["status"] != "COMPLETED":
        raise typer.Exit(1)


def _act(method: str, job_id: str, action: str, json_output: bool, data: Any) -> None:
    from cli.client import Client
    from cli.connection import connect
    from cli.output import console, print_json, table

    with Client(connect(data)) as client:
        path = f"{_PATH}/{job_id}{action}"
        match method:
            case "GET":
                job = client.get(path)
            case "DELETE":
                job = client.delete(path)
            case _:
                job = client.post(path, {})
    if json_output:
        print_json(job)
        return
    hidden = ("payload", "result", "stream_url", "progress")
    rows = [(name, value) for name, value in job.items() if value is not None and name not in hidden]
    done = job["progress"]
    rows.append(("done", f"{done['processed_files']} of {done['total_files']} ({done['percentage']:.0f} %)"))
    rows += done["details"].items()
    console().print(table(("", ""), rows))


def _state(job: dict[str, Any]) -> str:
    if job["status"] in FINAL:
        return str(job["status"])
    return "paused" if job["paused"] else f"{job['status']} {job['phase']}".strip()


def _more(details: dict[str, Any]) -> str:
    if "passages" not in details:
        return ""
    eta = details.get("eta_s")
    left = "" if not eta else f", {eta:.0f} s left"
    return f"{details['passages']} passages, {details['passages_without_vector']} without a vector{left}"
