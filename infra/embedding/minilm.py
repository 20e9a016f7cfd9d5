"""all-MiniLM-L6-v2 on ONNX Runtime: 384 dimensions, 254 tokens of a passage, no torch.

A *query* embedder is one thread at normal priority: a question takes about 3 ms. A *bulk* embedder uses the cores that
are there at a lower priority, takes one call at a time and lets go between batches, so a load never starves a question.
"""

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from infra.embedding.minilm_tokens import MAX_TOKENS, token_ids
from infra.embedding.minilm_weights import QUANTISED, WEIGHTS_SHA256, quantised_weights
from streams.model import EmbeddingModel, FloatMatrix, FloatVector

DIMENSIONS = 384
T = TypeVar("T")
Precision = Literal["fp32", "int8"]

# Larger batches gain nothing (measured: 4 x 256 tokens as fast as 8 x 256) and hold more memory: the session grows by
# 66 MB at 1,000 tokens, by 100 MB at 2,000.
BATCH_TOKENS = 1024
# Texts that are tokenised in one go: 0.2 s, after which a cancelled call stops.
TOKENISE_AT_ONCE = 256
BULK_NICENESS = 10

MODELS = {
    "fp32": EmbeddingModel("minilm", f"minilm-l6-fp32-{WEIGHTS_SHA256[:12]}", DIMENSIONS, MAX_TOKENS),
    "int8": EmbeddingModel("minilm-int8", f"minilm-l6-int8-{WEIGHTS_SHA256[:12]}", DIMENSIONS, MAX_TOKENS),
}


class MiniLmEmbedder:
    """Embeds in a thread of its own, one call at a time, in the order in which calls arrive.

    The session loads in that thread from the moment the embedder is made; the first call waits for it. The same text
    gives the same vector to 1e-5 in any batch with fp32. With int8 the scale of a batch depends on all its texts, so
    vectors of one text differ between batches by 0.003 to 0.03 of cosine.
    """

    def __init__(self, weights: Path, precision: Precision, *, threads: int = 1, background: bool = False) -> None:
        self._model = MODELS[precision]
        self._executor = ThreadPoolExecutor(
            1, thread_name_prefix=f"embed-{self._model.name}", initializer=_lower_priority if background else None
        )
        # Made in the thread that will use it: ONNX Runtime's own threads inherit its priority.
        self._session: Future[Session] = self._executor.submit(Session, weights, precision, threads=threads)
        self._turn = asyncio.Lock()

    @property
    def model(self) -> EmbeddingModel:
        return self._model

    async def embed_passages(self, texts: Sequence[str]) -> FloatMatrix:
        vectors = np.empty((len(texts), DIMENSIONS), np.float32)
        async with self._turn:
            ids = await self._tokenise(texts)
            for batch in batches([len(each) for each in ids]):
                vectors[batch] = await self._run([ids[i] for i in batch])
        return vectors

    async def embed_query(self, text: str) -> FloatVector:
        async with self._turn:
            vector: FloatVector = (await self._in_thread(lambda: self._session.result().run(token_ids([text]))))[0]
        return vector

    async def close(self) -> None:
        """Let go of the thread once the batch under way is done."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = []
        for start in range(0, len(texts), TOKENISE_AT_ONCE):
            part = texts[start : start + TOKENISE_AT_ONCE]
            ids += await self._in_thread(lambda part=part: token_ids(part))  # type: ignore[misc]
        return ids

    async def _run(self, ids: list[list[int]]) -> FloatMatrix:
        return await self._in_thread(lambda: self._session.result().run(ids))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


class Session:
    """A loaded model. Not for two threads at once."""

    def __init__(self, weights: Path, precision: Precision, *, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Shapes change with every batch, so a memory plan per shape would only pile up.
        options.enable_mem_pattern = False
        # The graph is written with the operators that are fastest; fusing more makes it slower and the start later.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(weights.parent))
        # Shared arrays that the session does not copy: they live as long as it does.
        self._quantised = _quantised_initializers(weights) if precision == "int8" else {}
        options.add_external_initializers(list(self._quantised), list(self._quantised.values()))
        graph = Path(__file__).with_name("minilm.onnx" if precision == "fp32" else "minilm_int8.onnx")
        self._session = ort.InferenceSession(graph.read_bytes(), options, providers=["CPUExecutionProvider"])

    def run(self, ids: Sequence[Sequence[int]]) -> FloatMatrix:
        """One unit-length vector per row of token ids, shape (len(ids), 384); rows are padded here."""
        padded = np.zeros((len(ids), max(map(len, ids))), np.int32)
        for row, each in zip(padded, ids, strict=True):
            row[: len(each)] = each
        vectors: FloatMatrix = self._session.run(["vectors"], {"input_ids": padded})[0]
        return vectors


def batches(lengths: Sequence[int], *, max_tokens: int = BATCH_TOKENS) -> Iterator[npt.NDArray[np.intp]]:
    """Positions grouped by like length, longest first; padded, a batch is at most ``max_tokens`` (or one text)."""
    order = np.argsort(-np.asarray(lengths, np.int64), kind="stable")
    start = 0
    while start < len(order):
        texts = max(1, max_tokens // max(1, lengths[order[start]]))
        yield order[start : start + texts]
        start += texts


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _quantised_initializers(weights: Path) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, weight, scales in quantised_weights(weights):
        values[name + QUANTISED] = ort.OrtValue.ortvalue_from_numpy(weight)
        values[f"{name}.scale"] = ort.OrtValue.ortvalue_from_numpy(scales)
    return values


def _lower_priority() -> None:
    """Only Linux has a priority per thread; elsewhere this would slow down the whole process."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), BULK_NICENESS)
