"""Parsing and cutting alone: speed on a folder of Markdown, and what real edits cost.

    python -m benchmarks.bench_text DIR [--events events.jsonl.gz --base base.jsonl.gz] [--counter minilm|fast]

Prints one JSON object: MB per second of processor time, passages, tokens; per edit the share of passages that are new.
"""

import argparse
import gzip
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infra.embedding.minilm_tokens import WordPieceCounter
from schemas.pipeline import ChunkedPassage
from streams.chunk import chunk
from streams.formats import Format
from streams.model import ParsedDocument
from streams.parse_text import parse_source
from streams.ports import TokenCounter
from tests.fakes.tokens import FastTokenCounter

MAX_TOKENS = 254
OVERLAP = 50


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("--base", type=Path)
    options.add_argument("--events", type=Path)
    options.add_argument("--last", type=int, default=600, help="how many of the events to measure")
    options.add_argument("--counter", choices=["minilm", "fast"], default="minilm")
    chosen = options.parse_args()
    counter: TokenCounter = WordPieceCounter() if chosen.counter == "minilm" else FastTokenCounter()
    figures: dict[str, Any] = {"counter": chosen.counter, "speed": speed(chosen.folder, counter)}
    if chosen.base and chosen.events:
        figures["edits"] = edits(chosen.base, chosen.events, chosen.last, counter)
    print(json.dumps(figures, indent=2))


def speed(folder: Path, counter: TokenCounter) -> dict[str, float]:
    """Processor time, not wall time: the machine may be busy."""
    sources = [path.read_bytes().decode() for path in sorted(folder.rglob("*.md"))]
    megabytes = sum(len(source.encode()) for source in sources) / 1e6
    started = time.process_time()
    documents = [parse(source) for source in sources]
    parsed_at = time.process_time()
    passages = [passage for document in documents for passage in cut(document, counter)]
    cut_at = time.process_time()
    return {
        "files": len(sources),
        "megabytes": round(megabytes, 1),
        "parse_mb_per_s": round(megabytes / (parsed_at - started), 1),
        "parse_and_chunk_mb_per_s": round(megabytes / (cut_at - started), 1),
        "passages": len(passages),
        "tokens": sum(passage.tokens for passage in passages),
    }


def edits(base: Path, events: Path, last: int, counter: TokenCounter) -> dict[str, float]:
    """New passages per edit in a real history, against those that hold a changed line (the least possible)."""
    texts = {record["path"]: record["text"] for record in records(base)}
    history = list(records(events))
    new_counts, shares, least = [], [], 0
    for number, event in enumerate(history):
        before, after = texts.get(event["path"]), event.get("text")
        if event["op"] == "M" and before and after and number >= len(history) - last:
            known = {passage.content_hash for passage in cut(parse(before), counter)}
            passages = cut(parse(after), counter)
            new = sum(passage.content_hash not in known for passage in passages)
            new_counts.append(new)
            shares.append(new / len(passages))
            least += least_possible(before, passages)
        if after is None:
            texts.pop(event["path"], None)
        else:
            texts[event["path"]] = after
    return {
        "edits": len(new_counts),
        "new_passages": sum(new_counts),
        "passages_with_a_changed_line": least,
        "new_per_edit_mean": round(statistics.mean(new_counts), 2),
        "new_per_edit_p95": sorted(new_counts)[int(len(new_counts) * 0.95)],
        "share_of_passages_mean": round(statistics.mean(shares), 4),
    }


def least_possible(before: str, passages: list[ChunkedPassage]) -> int:
    """Passages with a line that the text before did not have: no way of cutting embeds fewer."""
    known = {line.strip() for line in before.splitlines()}
    return sum(any(line.strip() not in known for line in passage.text.splitlines()) for passage in passages)


def parse(source: str) -> ParsedDocument:
    return parse_source(source, format=Format.MARKDOWN, content_type="text/markdown", document_id="document.md")


def cut(document: ParsedDocument, counter: TokenCounter) -> list[ChunkedPassage]:
    return chunk(document, max_tokens=MAX_TOKENS, overlap=OVERLAP, counter=counter)


def records(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


if __name__ == "__main__":
    main()
