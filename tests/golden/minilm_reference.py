"""all-MiniLM-L6-v2 written out in numpy, float64 where it is summed: slow, simple, and independent of our graph.

``python -m tests.golden.minilm_reference`` writes ``minilm.json``, the golden vectors. Tokens come from the model's own
``vocab.txt`` through the library's ``BertWordPieceTokenizer``, not from the ``tokenizer.json`` that Leat reads.
"""

import json
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import BertWordPieceTokenizer

from infra.embedding.minilm_weights import model_folder

GOLDEN = Path(__file__).with_name("minilm.json")
TEXTS = [
    "Kafka keeps the newest record of each key when a topic is compacted.",
    "What happens to a deleted document?",
    "a",
    "Leat é um motor de respostas sobre documentos que mudam o tempo todo.",
    "¿Cuándo deja de recibir soporte la versión 3.11?",
    "Hệ thống trả lời câu hỏi dựa trên các tài liệu thay đổi liên tục.",
    "Die Straße über den Größenwahn führt nach Österreich.",
    "流式问答引擎会引用它的来源。",
    "Потоковый движок ответов цитирует свои источники.",
    "def commit(self, offsets: dict[TopicPartition, int]) -> None: ...",
    "| version | released | end of life |\n|---|---|---|\n| 3.11.7 | 2023-12-04 | 2027-10-31 |",
    "🚀 naïve café — “quoted” … ½ ﬁne\u0301 \u200bzero-width",
    "Long passages use every position that the model reads. " * 24,
]

Array = npt.NDArray[np.float64]
_erf = np.vectorize(math.erf)


def load_tensors() -> dict[str, Array]:
    data = (model_folder() / "model.safetensors").read_bytes()
    header_bytes = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + header_bytes])
    tensors = {}
    for name, tensor in header.items():
        if tensor.get("dtype") == "F32":
            begin, end = (8 + header_bytes + offset for offset in tensor["data_offsets"])
            values = np.frombuffer(data[begin:end], np.float32).reshape(tensor["shape"])
            tensors[name] = values.astype(np.float64)
    return tensors


def normalise(x: Array, w: dict[str, Array], name: str) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
    return scaled * w[f"{name}.LayerNorm.weight"] + w[f"{name}.LayerNorm.bias"]


def dense(x: Array, w: dict[str, Array], name: str) -> Array:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def forward(ids: list[int], w: dict[str, Array]) -> Array:
    """The unit-length vector of one text, from its token ids with [CLS] and [SEP]."""
    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = normalise(x + w["embeddings.token_type_embeddings.weight"][0], w, "embeddings")
    for n in range(6):
        name = f"encoder.layer.{n}"
        q, k, v = (
            dense(x, w, f"{name}.attention.self.{role}").reshape(len(ids), 12, 32).transpose(1, 0, 2)
            for role in ("query", "key", "value")
        )
        scores = np.exp(q @ k.transpose(0, 2, 1) / math.sqrt(32))
        scores /= scores.sum(-1, keepdims=True)
        attended = (scores @ v).transpose(1, 0, 2).reshape(len(ids), 384)
        x = normalise(x + dense(attended, w, f"{name}.attention.output.dense"), w, f"{name}.attention.output")
        inner = dense(x, w, f"{name}.intermediate.dense")
        inner = inner * 0.5 * (1 + _erf(inner / math.sqrt(2)))
        x = normalise(x + dense(inner, w, f"{name}.output.dense"), w, f"{name}.output")
    mean: Array = x.mean(0)
    return mean / np.linalg.norm(mean)


def main() -> None:
    tokenizer = BertWordPieceTokenizer(str(model_folder() / "vocab.txt"), lowercase=True)
    tokenizer.enable_truncation(256)
    weights = load_tensors()
    rows = []
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        vector = [float(f"{value:.6f}") for value in forward(ids, weights)]
        rows.append({"text": text, "tokens": len(ids) - 2, "vector": vector})
    GOLDEN.write_text(json.dumps(rows, ensure_ascii=False, indent=None, separators=(",", ":")).replace("},{", "},\n{"))


if __name__ == "__main__":
    main()
