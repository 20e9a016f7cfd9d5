"""What the routes about collections, generations and jobs need; and how their refusals become problems."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from api.problems import ProblemError, not_found
from streams.erasure import ErasureDesk
from streams.generations import CollectionDesk, GenerationDesk, GenerationRefused
from streams.jobs import JobDesk

_MISSING = frozenset({"no-such-collection", "no-such-generation", "no-such-folder"})
_INVALID = frozenset({"model-refused", "invalid-sizes"})


@dataclass(frozen=True, slots=True)
class Administration:
    """Ports of those who run an installation."""

    collections: CollectionDesk
    generations: GenerationDesk
    jobs: JobDesk
    erasures: ErasureDesk
    allowed_directory: Callable[[str], Path]
    """The folder, if it may be ingested from. Raises ``PermanentError``: it may not."""


@contextmanager
def refusals() -> Iterator[None]:
    """What does not exist is 404, what cannot be is 422, what the state of the thing does not allow is 409."""
    try:
        yield
    except GenerationRefused as error:
        if error.reason in _MISSING:
            raise not_found(error.detail) from error
        status = 422 if error.reason in _INVALID else 409
        raise ProblemError(status, error.reason, "This can not be done now", error.detail) from error
