"""The answerer."""

import os
import socket

from faststream.kafka import KafkaRouter

from consumers import answerer
from consumers.wiring.role import Role, Wiring
from infra.guardrails import GUARDRAILS
from streams.answering import Answering
from streams.as_of import TimeTravel
from streams.prompt import DEFAULT_BUDGET_TOKENS, budget_of
from streams.topology import ANSWERER


def _router(wiring: Wiring) -> KafkaRouter:
    resources, settings = wiring.resources, wiring.settings
    answering = Answering(
        catalog=resources.catalog,
        embedders=resources.query_embedders,
        sparse=resources.sparse,
        index=resources.index,
        passages=resources.passages,
        answers=resources.answers,
        stream=resources.answer_stream,
        generator=resources.generator,
        worker=settings.instance_id or f"{socket.gethostname()}-{os.getpid()}",
        conversations=resources.conversations,
        cache=resources.answer_cache,
        guardrails=resources.guardrails,
        on_guardrail=lambda name: GUARDRAILS.labels(name).inc(),
        time_travel=TimeTravel(resources.history, resources.vector_cache, resources.index, resources.sparse),
        installation=wiring.installation,
        grace_s=settings.answer_grace_s,
        budget_tokens=budget_of(settings.ollama_num_ctx) if settings.generator == "ollama" else DEFAULT_BUDGET_TOKENS,
    )
    return answerer.router(wiring.delivery(ANSWERER), answering, outbox=wiring.outbox, drains=wiring.drains)


ROLE = Role(
    needs=frozenset(
        {
            "catalog",
            "query_embedders",
            "sparse",
            "index",
            "passages",
            "answers",
            "answer_stream",
            "answer_cache",
            "conversations",
            "guardrails",
            "generator",
        }
    ),
    router=_router,
)
