"""``leat ask``: the answer as it is written, then its sources."""

import secrets
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from cli.options import AsOfOption, DataOption, JsonOption

app = typer.Typer()


@app.command()
def ask(
    question: Annotated[list[str] | None, typer.Argument(help="The question; quotes are not needed.")] = None,
    conversation: Annotated[
        str | None, typer.Option(help="A name of your choice: the question is understood with the earlier ones.")
    ] = None,
    interactive: Annotated[
        bool, typer.Option("--interactive", "-i", help="Go on asking, one conversation, until an empty line.")
    ] = False,
    collection: Annotated[str, typer.Option(help="The collection to ask.")] = "default",
    top_k: Annotated[int, typer.Option(min=1, max=20, help="How many passages the answer may rest on.")] = 5,
    threshold: Annotated[float | None, typer.Option(min=0, max=1, help="Ignore passages that score lower.")] = None,
    as_of: AsOfOption = None,
    json_output: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Ask a question; the answer streams in with numbered citations. Exit code 1: the documents hold no answer."""
    from cli.client import Client
    from cli.connection import connect
    from cli.exits import USAGE, Refused
    from cli.moments import moment

    if not question and not interactive:
        raise Refused("ask something, or give --interactive", USAGE)
    body: dict[str, Any] = {"collection": collection, "top_k": top_k}
    if threshold is not None:
        body["threshold"] = threshold
    if as_of is not None:
        body["as_of"] = moment(as_of)
    if conversation or interactive:
        body["conversation_id"] = conversation or secrets.token_hex(8)
    answer: dict[str, Any] = {"answered": True}
    with Client(connect(data)) as client:
        for query in _questions(" ".join(question or ()), interactive):
            asked = {**body, "query": query}
            answer = _collect(client, asked) if json_output else _show(client, asked)
    if not answer["answered"]:
        raise typer.Exit(1)


def _questions(first: str, interactive: bool) -> Iterator[str]:
    """The question given, then, if wanted, lines from the terminal until an empty one."""
    if first:
        yield first
    while interactive:
        try:
            line = input("> ").strip()
        except EOFError:
            return
        if not line:
            return
        yield line


def _collect(client: Any, body: dict[str, Any]) -> dict[str, Any]:
    from cli.output import print_json

    answer = _finished(event for event in client.stream(body))
    print_json(answer)
    return answer


def _show(client: Any, body: dict[str, Any]) -> dict[str, Any]:
    from cli.output import console, milliseconds, source_line

    wrote = False

    def shown() -> Any:
        nonlocal wrote
        for event in client.stream(body):
            if event.name == "token":
                sys.stdout.write(event.data["text"])
                sys.stdout.flush()
                wrote = True
            elif event.name == "restart":
                sys.stdout.write("\n(the answer begins again)\n")
            yield event

    answer = _finished(shown())
    if not wrote:
        sys.stdout.write(answer["answer"])
    sys.stdout.write("\n")
    out = console()
    if answer.get("standalone_query"):
        out.print(f"understood as: {answer['standalone_query']}", style="dim", markup=False)
    if answer["sources"] and answer["answered"]:
        out.print()
        for passage in answer["sources"]:
            out.print(source_line(passage), style="cyan", markup=False)
            if quote := passage.get("quote"):
                out.print(f"    “{' '.join(quote.split())}”", style="dim", markup=False)
    facts = [f"{milliseconds(answer['took_ms'])}"]
    if answer.get("confidence") is not None:
        facts.append(f"confidence {answer['confidence']:.2f}")
    if answer.get("as_of"):
        facts.append(f"as of {answer['as_of']}")
    if answer.get("behind_ms"):
        facts.append(f"index {milliseconds(answer['behind_ms'])} behind the log")
    if answer.get("degraded"):
        facts.append(f"degraded: {answer.get('degraded_reason')}")
    if answer.get("cached"):
        facts.append("given before")
    if answer.get("guardrails_triggered"):
        facts.append(f"guardrails: {', '.join(answer['guardrails_triggered'])}")
    out.print("\n" + " · ".join(facts), style="dim", markup=False)
    return answer


def _finished(events: Any) -> dict[str, Any]:
    from cli.exits import NO, UNREACHABLE, Refused

    for event in events:
        if event.name == "done":
            return dict(event.data)
        if event.name == "failed":
            code = UNREACHABLE if event.data.get("retryable") else NO
            raise Refused(f"no answer: {event.data['reason']}: {event.data['detail']}", code)
        if event.name == "resync":
            answer = event.data.get("answer")
            if answer:
                return dict(answer)
    raise Refused("the stream ended without an answer: ask again", UNREACHABLE)
