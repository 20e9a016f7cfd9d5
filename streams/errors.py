"""Whose fault is it? Four answers, and ``consumers/delivery.py`` turns each into a fate.

The call's: ``TransientError``, a few bounded retries. The record's: ``PermanentError``, to the dead letters. A
dependency's: ``Unavailable``, hold the partition and let lag grow. Ours: anything else; stop the process.
"""


class LeatError(Exception):
    """Base of the errors that we raise on purpose."""


class TransientError(LeatError):
    """This call failed; the same call may succeed in a moment."""


class Unavailable(LeatError):
    """A dependency does not answer. Nothing is wrong with the record: wait until the dependency is back."""

    def __init__(self, dependency: str, detail: str, *, retry_after_s: float = 5.0) -> None:
        super().__init__(f"{dependency} is not available: {detail}")
        self.dependency = dependency
        self.detail = detail
        self.retry_after_s = retry_after_s


class CircuitOpen(Unavailable):
    """The dependency was not even asked: it failed too often lately. ``retry_after_s`` says when it will be."""


class PermanentError(LeatError):
    """This record or request can never succeed as it is. Retrying cannot help.

    ``reason`` is a short fixed word; people build alerts on it. ``detail`` names the thing and the way out.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class UnreadableDocument(PermanentError):
    """No parser can read the document."""


class InvalidRecord(PermanentError):
    """The record is not an event of its topic."""


class NotFound(LeatError):
    """What was asked for does not exist, or the asker may not know that it does."""


class StaleAttempt(LeatError):
    """Another worker has taken over this answer; stop writing to it."""


class StreamLost(LeatError):
    """Events of an answer's stream are gone from the buffer: going on would leave a hole.

    Read the stored answer instead.
    """
