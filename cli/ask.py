"""``leat ask``: the answer as it is written, then its sources."""

import sys
from typing import Annotated, Any

import typer

from cli.options import DataOption, JsonOption

app = typer.Typer()


@app.command()
def ask(
    question: Annotated[list[str], typer.Argument(help="The question; quotes are not needed.")],
    collection: Annotated[str, typer.Option(help="The collection to ask.")] = "default",
    top_k: Annotated[int, typer.Option(min=1, max=20, help="How many passages the answer may rest on.")] = 5,
    threshold: Annotated[float | None, typer.Option(min=0, max=1, help="Ignore passages that score lower.")] = None,
    json_output: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Ask a question; the answer streams in with numbered citations. Exit code 1: the documents hold no answer."""
    from cli.client import Client
    from cli.connection import connect

    body: dict[str, Any] = {"query": " ".join(question), "collection": collection, "top_k": top_k}
    if threshold is not None:
        body["threshold"] = threshold
    with Client(connect(data)) as client:
        answer = _collect(client, body) if json_output else _show(client, body)
    if not answer["answered"]:
        raise typer.Exit(1)


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
    if answer["sources"] and answer["answered"]:
        out.print()
        for passage in answer["sources"]:
            out.print(source_line(passage), style="cyan", markup=False)
            if quote := passage.get("quote"):
                out.print(f"    “{' '.join(quote.split())}”", style="dim", markup=False)
    facts = [f"{milliseconds(answer['took_ms'])}"]
    if answer.get("confidence") is not None:
        facts.append(f"confidence {answer['confidence']:.2f}")
    if answer.get("behind_ms"):
        facts.append(f"index {milliseconds(answer['behind_ms'])} behind the log")
    if answer.get("degraded"):
        facts.append(f"degraded: {answer.get('degraded_reason')}")
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
