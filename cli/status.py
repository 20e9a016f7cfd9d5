"""``leat status``: documents, lag, freshness, what waits for a person."""

from typing import Any

import typer

from cli.options import DataOption, JsonOption

app = typer.Typer()


@app.command()
def status(json_output: JsonOption = False, data: DataOption = None) -> None:
    """Documents received, searchable and embedded; lag; freshness; dead letters. Exit code 1: not ready."""
    from cli.client import Client
    from cli.connection import connect
    from cli.output import print_json

    with Client(connect(data)) as client:
        found = client.get("/api/v1/status")
    if json_output:
        print_json(found)
    else:
        _show(found)
    if not found["ready"]:
        raise typer.Exit(1)


def _show(found: dict[str, Any]) -> None:
    from cli.output import console, milliseconds, table

    documents, freshness = found["documents"], found["freshness_ms"]
    rows: list[tuple[str, Any]] = [
        ("ready", "yes" if found["ready"] else "no"),
        ("documents received", documents["received"]),
        ("  searchable by words", documents["searchable"]),
        ("  embedded", documents["embedded"]),
        ("  failed", documents["failed"]),
        ("passages", f"{found['passages']} ({found['passages_without_vector']} without a vector)"),
        ("searchable after", _percentiles(freshness["searchable"])),
        ("embedded after", _percentiles(freshness["embedded"])),
        ("dead letters", found["dead_letters"]),
        ("index differed from log", _drift(found.get("drift"))),
        ("oldest change not applied", milliseconds((found.get("oldest_unapplied_s") or 0) * 1000)),
        ("lag", ", ".join(f"{group} {records}" for group, records in sorted(found["lag"].items()) if records) or "0"),
        ("generations", ", ".join(f"{name} {number}" for name, number in sorted(found["generations"].items())) or "–"),
    ]
    out = console()
    out.print(table(("", ""), rows))
    if documents.get("withheld"):
        out.print(
            f"\n{documents['withheld']} deletions are withheld: their files vanished together while nobody watched. "
            "If they are meant, `leat watch --approve-deletions`.",
            style="yellow",
            markup=False,
        )
    if documents["failed"] or found["dead_letters"]:
        out.print("\n`leat dead-letters list` says what failed and why.", style="yellow", markup=False)


def _drift(drift: dict[str, Any] | None) -> str:
    """What the reconciler found in its last round, and has repaired so far."""
    if not drift or not drift["checked_at"]:
        return "not compared yet"
    return f"in {drift['points']} points, {drift['repaired']} repaired so far, compared at {drift['checked_at'][:19]}"


def _percentiles(values: dict[str, Any]) -> str:
    from cli.output import milliseconds

    return f"p50 {milliseconds(values.get('p50'))}, p95 {milliseconds(values.get('p95'))} (last 5 minutes)"
