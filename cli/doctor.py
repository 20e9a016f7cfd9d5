"""``leat doctor``: what is here, what is missing, and what to do."""

import typer

from cli.options import DataOption, JsonOption

app = typer.Typer()


@app.command()
def doctor(json_output: JsonOption = False, data: DataOption = None) -> None:
    """Look at this machine without starting or fetching anything. Exit code 1: something is missing."""
    import asyncio
    from dataclasses import asdict

    from cli.output import console, print_json, table
    from infra.local.doctor import examine
    from infra.settings import load

    findings = asyncio.run(examine(load(data_dir=data)))
    ok = all(finding.ok for finding in findings)
    if json_output:
        print_json({"ok": ok, "checks": [asdict(finding) for finding in findings]})
    else:
        rows = [("ok" if finding.ok else "missing", finding.name, finding.found, finding.cure) for finding in findings]
        console().print(table(("", "part", "found", "what to do"), rows))
    raise typer.Exit(0 if ok else 1)
