"""Vectors, dense and sparse."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatVector = npt.NDArray[np.float32]
"""Shape (dimensions,), unit length."""


FloatMatrix = npt.NDArray[np.float32]
"""Shape (n, dimensions), one unit-length row per text, in the order of the texts."""


@dataclass(frozen=True, slots=True)
class SparseVector:
    indices: Sequence[int]
    """Distinct, below 2**32."""
    values: Sequence[float]
