"""What a model of embeddings may refuse."""

from streams.errors import LeatError


class ModelRefused(LeatError):
    """A model that must not be used as it is set up. Nothing is wrong with any record, so no record may die of it."""
