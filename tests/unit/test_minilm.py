"""What is particular to the embedded model: its files, its batches, its tokens."""

import asyncio
import itertools
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from infra import settings as settings_module
from infra.embedding import (
    ModelRefused,
    describe_model,
    make_embedder,
    make_token_counter,
    minilm_graph,
    minilm_weights,
)
from infra.embedding.minilm import BULK_NICENESS, MiniLmEmbedder, batches
from infra.embedding.minilm_tokens import MAX_CACHED_WORDS, WordPieceCounter
from tests.golden.minilm_reference import GOLDEN

ROWS = json.loads(GOLDEN.read_text())


def data_file(*parts: str) -> Path:
    folder = Path(os.environ.get("LEAT_DATA") or Path(__file__).parents[3] / "shared" / "data")
    path = folder.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{path} is not there; set LEAT_DATA")
    return path


def test_the_committed_graphs_are_what_their_script_writes() -> None:
    for name, int8 in (("minilm.onnx", False), ("minilm_int8.onnx", True)):
        committed = (Path(minilm_graph.__file__).parent / name).read_bytes()
        assert committed == minilm_graph.build(int8=int8).SerializeToString(deterministic=True), name


@pytest.mark.parametrize(("name", "least"), [("minilm", 0.999), ("minilm-int8", 0.98)])
async def test_vectors_equal_the_golden_ones(name: str, least: float, tmp_path: Path) -> None:
    embedder = make_embedder(settings_module.load(data_dir=tmp_path), name, purpose="bulk")
    vectors = await embedder.embed_passages([row["text"] for row in ROWS])
    golden = np.array([row["vector"] for row in ROWS])
    cosines = (vectors * golden).sum(axis=1) / np.linalg.norm(golden, axis=1)
    assert cosines.min() >= least
    one_by_one = [await embedder.embed_query(row["text"]) for row in ROWS]
    assert (np.stack(one_by_one) * golden).sum(axis=1).min() >= least


def test_other_weights_are_refused_with_a_message_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"other")
    monkeypatch.setattr(minilm_weights, "model_folder", lambda: tmp_path)
    with pytest.raises(ModelRefused, match=r"want 53aa51172d14.*install"):
        minilm_weights.verified_weights(tmp_path / "cache")


def test_weights_are_hashed_once_and_again_when_the_file_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"weights")
    monkeypatch.setattr(minilm_weights, "model_folder", lambda: tmp_path)
    monkeypatch.setattr(minilm_weights, "WEIGHTS_SHA256", "9f" * 32)
    with pytest.raises(ModelRefused) as refused:
        minilm_weights.verified_weights(tmp_path / "cache")
    monkeypatch.setattr(minilm_weights, "WEIGHTS_SHA256", str(refused.value).split()[3].rstrip(","))
    minilm_weights.verified_weights(tmp_path / "cache")
    monkeypatch.setattr(minilm_weights.hashlib, "file_digest", None)  # would now fail if it were called
    minilm_weights.verified_weights(tmp_path / "cache")
    weights.write_bytes(b"changed")
    with pytest.raises(TypeError):
        minilm_weights.verified_weights(tmp_path / "cache")


def test_batches_cover_every_text_once_and_stay_below_the_limit() -> None:
    lengths = [int(n) for n in np.random.default_rng(0).integers(2, 257, 500)]
    found = list(batches(lengths, max_tokens=1024))
    assert sorted(itertools.chain.from_iterable(batch.tolist() for batch in found)) == list(range(500))
    assert max(len(batch) * max(lengths[i] for i in batch) for batch in found) <= 1024
    padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in found)
    assert padded <= 1.05 * sum(lengths)
    assert list(batches([])) == []


async def test_the_bulk_embedder_works_at_a_lower_priority_and_the_query_embedder_does_not(tmp_path: Path) -> None:
    weights = minilm_weights.verified_weights(tmp_path)
    ours = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    for background, priority in ((True, max(BULK_NICENESS, ours)), (False, ours)):
        embedder = MiniLmEmbedder(weights, "fp32", background=background)
        await embedder.embed_query("warm")
        niceness = await embedder._in_thread(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        assert niceness == priority
        await embedder.close()


async def test_a_large_call_can_be_cancelled_between_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = 0
    run = MiniLmEmbedder._run

    async def counting(self: MiniLmEmbedder, ids: list[list[int]]) -> np.ndarray:
        nonlocal begun
        begun += 1
        return await run(self, ids)

    monkeypatch.setattr(MiniLmEmbedder, "_run", counting)
    embedder = make_embedder(settings_module.load(data_dir=tmp_path), "minilm", purpose="bulk")
    await embedder.embed_query("warm")
    call = asyncio.create_task(embedder.embed_passages(["many words in every text " * 40] * 2000))
    while not begun:
        await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await embedder.embed_passages(["after"])).shape == (1, 384)
    # Of some hundred: what was under way, and the one text after it.
    assert begun < 10


def test_counting_exactly_agrees_with_the_golden_counts() -> None:
    counter = WordPieceCounter()
    for row in ROWS[:-1]:
        assert counter.count_exact(row["text"]) == row["tokens"]
        assert abs(counter.count(row["text"]) - row["tokens"]) <= 1


def test_counting_by_words_is_within_one_per_cent_on_real_documents() -> None:
    counter = WordPieceCounter()
    lines = _real_text()
    pieces = [lines[i : i + 2000] for i in range(0, min(len(lines), 600_000), 2000)]
    exact = [counter.count_exact(piece) for piece in pieces]
    fast = [counter.count(piece) for piece in pieces]
    errors = [abs(a - b) / max(a, 1) for a, b in zip(exact, fast, strict=True)]
    assert sum(errors) / len(errors) < 0.01
    assert abs(sum(fast) - sum(exact)) / sum(exact) < 0.01


def _real_text() -> str:
    """Text of every language and kind that the shared data has."""
    folder = data_file("xquad").parent
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".jsonl", ".md"))
    return "\n".join(path.read_text(encoding="utf-8", errors="replace")[:150_000] for path in files[:8])


def test_the_word_cache_is_bounded() -> None:
    counter = WordPieceCounter()
    counter.count(" ".join(f"word{n}" for n in range(MAX_CACHED_WORDS + 100)))
    assert len(counter._words) <= MAX_CACHED_WORDS
    counter.count("x" * 1000)
    assert "x" * 1000 not in counter._words


async def test_describing_a_model_does_not_load_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.embedding.minilm.Session", None)
    model = await describe_model(settings_module.load(), "minilm")
    assert (model.dimensions, model.max_tokens) == (384, 254)
    assert model.fingerprint != (await describe_model(settings_module.load(), "minilm-int8")).fingerprint


async def test_the_stand_in_is_refused_in_production_and_unknown_names_everywhere() -> None:
    production = settings_module.load(mode="production")
    for name in ("hash", "word2vec"):
        with pytest.raises(ModelRefused):
            make_embedder(production, name, purpose="query")
        with pytest.raises(ModelRefused):
            await describe_model(production, name)


def test_models_with_an_unknown_vocabulary_are_counted_roughly() -> None:
    settings = settings_module.load()
    text = ROWS[5]["text"]
    assert make_token_counter(settings, "ollama:bge-m3").count(text) >= ROWS[5]["tokens"] // 2
    assert make_token_counter(settings, "ollama:nomic-embed-text").count_exact(text) == ROWS[5]["tokens"]
