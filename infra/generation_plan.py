"""How a generation is built: the model that is asked for, and sizes that fit it."""

from infra.embedding import ModelRefused, describe_model
from infra.postgres.catalog import NewGeneration
from infra.postgres.collections import PlanGeneration
from infra.settings import Settings
from streams.generations import CollectionSettings, GenerationRefused
from streams.model import Generation


def generation_planner(settings: Settings) -> PlanGeneration:
    """Plans by these settings: what is not asked for is as before, or else as the settings say."""

    async def plan(wanted: CollectionSettings, before: Generation | None) -> NewGeneration:
        name = wanted.embedding_model or (settings.embedder if before is None else before.model.name)
        try:
            model = await describe_model(settings, name)
        except ModelRefused as error:
            raise GenerationRefused("model-refused", str(error)) from error
        # Sizes that suited another model are no reason to cut for this one in the same way.
        kept = before if before is not None and before.model.name == model.name else None
        tokens = wanted.chunk_tokens or (settings.chunk_tokens if kept is None else kept.chunk_tokens)
        tokens = min(tokens, model.max_tokens)
        overlap = wanted.chunk_overlap
        if overlap is None:
            overlap = min(settings.chunk_overlap if kept is None else kept.chunk_overlap, tokens // 2)
        if overlap > tokens // 2:
            detail = f"an overlap of {overlap} is more than half of a passage of {tokens} tokens"
            raise GenerationRefused("invalid-sizes", detail)
        told = wanted.parsers
        parsers = tuple(sorted(told.items())) if told is not None else (() if before is None else before.parsers)
        return NewGeneration(model=model, chunk_tokens=tokens, chunk_overlap=overlap, parsers=parsers)

    return plan
