"""``leat eval``: retrieval quality on labelled questions, leg by leg."""

import asyncio
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.exits import USAGE, Refused
from cli.options import DataOption, JsonOption

app = typer.Typer()

# The measure looks at the first 10 documents; passages are fetched deeper, since a document may have several.
DEPTH = 20
PIPELINES = ("sparse", "dense", "fusion", "leat")


@app.command(name="eval")
def eval_sets(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="SET|FOLDER…", help="Names of sets, or folders in BEIR's layout.", show_default=False),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All sets that are here.")] = False,
    json_output: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Print nDCG@10, recall@5 and MRR of the sparse leg, the dense leg, plain fusion and Leat's own ranking."""
    from infra.question_sets import SET_NAMES

    chosen = list(SET_NAMES) if every else list(names or [])
    if not chosen:
        raise Refused(f"name a set ({', '.join(SET_NAMES)}) or a folder, or say --all", USAGE)
    rows = asyncio.run(_measure(chosen, data, say=not json_output))
    if json_output:
        typer.echo(json.dumps(rows, ensure_ascii=False))
    else:
        _print(rows)


async def _measure(names: list[str], data: Path | None, *, say: bool) -> list[dict[str, Any]]:
    from infra import settings
    from infra.question_sets import load_set

    loaded = settings.load(data_dir=data)
    sets = [load_set(name) for name in names]
    rows = []
    for labelled in sets:
        if say:
            count = f"{len(labelled.documents)} documents, {len(labelled.questions)} questions"
            print(f"{labelled.name}: {count} …", file=sys.stderr)
        rows.append(await measure_set(labelled, loaded))
    return rows


async def measure_set(labelled: Any, settings: Any) -> dict[str, Any]:
    """One row: the set's name, nDCG@10 in points per ranking, and all measures in ``measures``."""
    from infra.evaluation import documents_of, evaluation_collection
    from streams.evaluate import quality
    from streams.fuse import reciprocal_rank_fusion

    rankings: dict[str, dict[str, list[str]]] = {pipeline: {} for pipeline in PIPELINES}
    with tempfile.TemporaryDirectory(prefix="leat-eval-") as folder:
        corpus = await evaluation_collection(settings, Path(folder))
        await corpus.open()
        try:
            await corpus.put(
                ((d.document_id, f"{d.title}\n\n{d.text}" if d.title else d.text) for d in labelled.documents),
                content_type="text/plain",
            )
            for question_id, question in labelled.questions.items():
                legs = await corpus.search(question, limit=4 * DEPTH)
                sparse = [candidate.point_id for candidate in legs.sparse]
                dense = [candidate.point_id for candidate in legs.dense]
                found = corpus.passages.passages
                rankings["sparse"][question_id] = documents_of(found, sparse)
                rankings["dense"][question_id] = documents_of(found, dense)
                rankings["fusion"][question_id] = documents_of(found, reciprocal_rank_fusion([sparse, dense]))
                ours = (await corpus.retrieve(question, top_k=DEPTH)).passages
                rankings["leat"][question_id] = list(dict.fromkeys(passage.document_id for passage in ours))
        finally:
            await corpus.close()
    measures = {pipeline: asdict(quality(ranking, labelled.relevance)) for pipeline, ranking in rankings.items()}
    points = {pipeline: round(100 * measures[pipeline]["ndcg_at_10"], 1) for pipeline in PIPELINES}
    return {"set": labelled.name, **points, "measures": measures}


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    titles = {"ndcg_at_10": "nDCG@10", "recall_at_5": "recall@5", "mrr": "MRR"}
    for measure, title in titles.items():
        table = Table(title=f"{title}, points")
        table.add_column("set")
        for pipeline in PIPELINES:
            table.add_column(pipeline, justify="right")
        for row in rows:
            values = [f"{100 * row['measures'][pipeline][measure]:.1f}" for pipeline in PIPELINES]
            table.add_row(row["set"], *values)
        console.print(table)
