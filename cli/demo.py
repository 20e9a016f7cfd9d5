"""``leat demo``: the story of a document, measured, with a process killed in the middle."""

import signal
import statistics
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import typer

from cli.options import DataOption, JsonOption

if TYPE_CHECKING:
    from cli.client import Client
    from cli.connection import Connection

app = typer.Typer()

DOCUMENTS = 40
EDITS = 10
_WAIT_MS = 20_000
_DEADLINE_S = 30.0


@dataclass
class Story:
    """What was measured, in order."""

    say: Callable[[str], None]
    measured: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def note(self, name: str, value: Any, line: str) -> None:
        self.measured[name] = value
        self.say(line)

    def check(self, holds: bool, what: str) -> None:
        if not holds:
            self.failures.append(what)
            self.say(f"  NOT as promised: {what}")


@app.command()
def demo(json_output: JsonOption = False, data: DataOption = None) -> None:
    """Add, edit, rename and delete documents in a scratch collection, ask after each step, kill the pipeline's process
    in the middle, and print every measured time. Takes less than a minute. Exit code 1: something was not as promised.
    """
    from cli.client import Client
    from cli.connection import connect
    from cli.output import print_json

    connection = connect(data)
    story = Story(say=(lambda _: None) if json_output else typer.echo)
    started = time.perf_counter()
    with Client(connection) as client:
        scratch = Scratch(client, f"demo-{uuid.uuid4().hex[:8]}")
        try:
            _tell(story, scratch, connection)
        finally:
            scratch.clear()
    story.note(
        "took_s", round(time.perf_counter() - started, 1), f"All of it took {time.perf_counter() - started:.1f} s."
    )
    if json_output:
        print_json({**story.measured, "ok": not story.failures, "not_as_promised": story.failures})
    if story.failures:
        raise typer.Exit(1)


class Scratch:
    """A collection of the demo's own, through the HTTP API."""

    def __init__(self, client: "Client", collection: str) -> None:
        self._client = client
        self._collection = collection
        self._names: set[str] = set()

    def put(self, name: str, text: str) -> str:
        self._names.add(name)
        return str(self._client.put_text(self._path(name), text)["position"])

    def delete(self, name: str) -> str:
        self._names.discard(name)
        return str(self._client.delete(self._path(name))["position"])

    def search(self, query: str, **options: Any) -> dict[str, Any]:
        body = {"query": query, "collection": self._collection, **options}
        return dict(self._client.post("/api/v1/search", body))

    def ask(self, query: str, **options: Any) -> dict[str, Any]:
        body = {"query": query, "collection": self._collection, **options}
        return dict(self._client.post("/api/v1/query", body))

    def until(self, position: str, state: str = "searchable") -> None:
        """Wait until a change is searchable (or embedded), superseded or failed."""
        self.search("demo", min_position=position, until=state, wait_ms=_WAIT_MS, top_k=1)

    def clear(self) -> None:
        for name in sorted(self._names):
            self.delete(name)

    def passages_embedded(self) -> int:
        """Passages that the installation has embedded so far."""
        return int(self._client.get("/api/v1/status")["embedded"]["passages"])

    def _path(self, name: str) -> str:
        return f"/api/v1/collections/{self._collection}/documents/{quote(name)}"


def _tell(story: Story, scratch: Scratch, connection: "Connection") -> None:
    _add(story, scratch)
    _edit(story, scratch)
    _kill(story, scratch, connection)
    _rename(story, scratch)
    _delete(story, scratch)


def _document(number: int, colour: str) -> str:
    return f"# Lighthouse {number}\n\nThe lamp of lighthouse number {number} is painted {colour}.\n"


def _add(story: Story, scratch: Scratch) -> None:
    started = time.perf_counter()
    positions = [scratch.put(f"lighthouse-{n}.md", _document(n, "white")) for n in range(DOCUMENTS)]
    for position in positions:
        scratch.until(position)
    searchable_s = time.perf_counter() - started
    for position in positions:
        scratch.until(position, "embedded")
    embedded_s = time.perf_counter() - started
    story.note("documents", DOCUMENTS, f"Added {DOCUMENTS} documents over HTTP, one request each:")
    story.note("added_searchable_s", round(searchable_s, 3), f"  all searchable after {searchable_s:.2f} s")
    story.note("added_embedded_s", round(embedded_s, 3), f"  all embedded after {embedded_s:.2f} s")
    answer, took_ms = _timed(lambda: scratch.ask("What colour is the lamp of lighthouse number 7?"))
    story.note("answer_ms", took_ms, f"  asked: “{_line(answer['answer'])}” ({took_ms:.0f} ms)")
    story.check("white" in answer["answer"], "the first answer says white")


def _edit(story: Story, scratch: Scratch) -> None:
    times: list[float] = []
    stale = 0
    for n in range(EDITS):
        started = time.perf_counter()
        position = scratch.put(f"lighthouse-{n}.md", _document(n, "crimson"))
        found = scratch.search(f"lamp of lighthouse number {n}", min_position=position, wait_ms=_WAIT_MS, top_k=5)
        times.append((time.perf_counter() - started) * 1000)
        mine = [it["text"] for it in found["passages"] if it["document_id"] == f"lighthouse-{n}.md"]
        stale += any("white" in text for text in mine) or not any("crimson" in text for text in mine)
    p50, worst = statistics.median(times), max(times)
    story.note("edit_p50_ms", round(p50, 1), f"Edited {EDITS} of them: saved to found in {p50:.0f} ms (p50)")
    story.note("edit_max_ms", round(worst, 1), f"  the slowest took {worst:.0f} ms")
    story.note("stale_results", stale, f"  results that were not the new text: {stale}")
    story.check(stale == 0, "every search right after an edit shows the new text only")


def _kill(story: Story, scratch: Scratch, connection: "Connection") -> None:
    import psutil

    name = next((name for name in connection.pids if "embedder" in name or name.startswith("pipeline")), None)
    if name is None:
        story.say("No process of the pipeline runs on this machine: nothing killed.")
        return
    last = ""
    started = time.perf_counter()
    for n in range(EDITS):
        last = scratch.put(f"lighthouse-{20 + n}.md", _document(20 + n, "turquoise"))
        if n == EDITS // 2:
            try:
                psutil.Process(connection.pids[name]).send_signal(signal.SIGKILL)
            except psutil.Error as error:
                story.say(f"  could not kill {name}: {error}")
    scratch.until(last, "embedded")
    healed_s = time.perf_counter() - started
    lost = 0
    for n in range(EDITS):
        found = scratch.search(f"lamp of lighthouse number {20 + n} turquoise", top_k=20)
        mine = [it["text"] for it in found["passages"] if it["document_id"] == f"lighthouse-{20 + n}.md"]
        lost += len(mine) != 1 or "turquoise" not in mine[0]
    story.note("killed", name, f"Killed {name} (with the embedder) in the middle of {EDITS} more edits:")
    story.note("healed_s", round(healed_s, 2), f"  started again and level with the log after {healed_s:.1f} s")
    story.note("lost_or_doubled", lost, f"  edits lost, doubled or stale: {lost}")
    story.check(lost == 0, "no edit is lost or doubled by the kill")


def _rename(story: Story, scratch: Scratch) -> None:
    before = scratch.passages_embedded()
    started = time.perf_counter()
    new = scratch.put("renamed.md", _document(3, "crimson"))
    old = scratch.delete("lighthouse-3.md")
    scratch.until(new, "embedded")
    scratch.until(old)
    took_ms = (time.perf_counter() - started) * 1000
    embedded = scratch.passages_embedded() - before
    story.note("rename_ms", round(took_ms, 1), f"Renamed a document: {took_ms:.0f} ms")
    story.note("rename_embedded", embedded, f"  passages embedded for it: {embedded}")
    story.check(embedded == 0, "a rename embeds nothing")


def _delete(story: Story, scratch: Scratch) -> None:
    times: list[float] = []
    for n in range(10, 10 + EDITS):
        started = time.perf_counter()
        scratch.delete(f"lighthouse-{n}.md")
        while any(
            it["document_id"] == f"lighthouse-{n}.md"
            for it in scratch.search(f"lamp of lighthouse number {n}", top_k=20)["passages"]
        ):
            if time.perf_counter() - started > _DEADLINE_S:
                story.check(False, f"lighthouse-{n}.md is still found {_DEADLINE_S:.0f} s after its deletion")
                break
        times.append((time.perf_counter() - started) * 1000)
    p50, worst = statistics.median(times), max(times)
    story.note("delete_p50_ms", round(p50, 1), f"Deleted {EDITS}: gone from every search in {p50:.0f} ms (p50)")
    story.note("delete_max_ms", round(worst, 1), f"  the slowest took {worst:.0f} ms")
    answer = scratch.ask("What colour is the lamp of lighthouse number 12?")
    gone = all(it["document_id"] != "lighthouse-12.md" for it in answer["sources"])
    story.say(f"  asked about a deleted one: “{_line(answer['answer'])}”")
    story.check(gone, "no answer cites a deleted document")


def _timed(act: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], float]:
    started = time.perf_counter()
    result = act()
    return result, round((time.perf_counter() - started) * 1000, 1)


def _line(text: str, limit: int = 100) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
