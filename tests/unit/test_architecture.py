"""The picture in ``streams/topology.py`` is the program: who reads what, who writes what, which way imports point."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from faststream.kafka import KafkaBroker, KafkaRouter

from consumers import answerer, chunker, embedder, indexer, recorder
from consumers.app import JOBS, ROLES, make_broker
from consumers.delivery import Delivery
from consumers.lanes import Lanes
from consumers.outbox import Outbox
from consumers.subscribing import ConsumerSettings
from infra.settings import Settings
from schemas import topics
from schemas.topics import TOPICS
from streams.topology import PRODUCERS, STAGES, Stage

ROOT = Path(__file__).parents[2]
DELIVERY_WRITES = {"DEAD_LETTERS", "INDEX_COMMITS"}
"""Every stage's delivery publishes dead letters and the outcome of what failed."""


class NeverUsed:
    """Wiring calls nothing; a test that did would fail here."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"wiring must not call {name}")


def wired_router(stage: Stage) -> KafkaRouter:
    broker = KafkaBroker()
    outbox, lanes, unused = Outbox(broker, prefix=""), Lanes(), NeverUsed()
    delivery = Delivery(
        stage,
        outbox=outbox,
        lanes=lanes,
        settings=ConsumerSettings("", "slot-0", 10_000, 300_000),
        crashes=unused,
        on_bug=unused,
        outcome_of=unused,
    )
    routers = {
        "chunker": lambda: chunker.router(delivery, unused, outbox=outbox, lanes=lanes),
        "embedder": lambda: embedder.router(delivery, unused, outbox=outbox, lanes=lanes),
        "indexer": lambda: indexer.router(delivery, unused, outbox=outbox),
        "recorder": lambda: recorder.router(delivery, outcomes=unused, queries=unused),
        "answerer": lambda: answerer.router(delivery, unused, outbox=outbox),
    }
    return routers[stage.name]()


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_real_subscriptions_equal_the_topology(stage: Stage) -> None:
    router = wired_router(stage)
    read = {(topic, subscriber.group_id) for subscriber in router.subscribers for topic in subscriber.topic_names}
    assert read == {(topic.name, stage.group_of(topic)) for topic in stage.reads}


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_consumers_leave_nothing_to_the_defaults_that_lose_records(stage: Stage) -> None:
    for subscriber in wired_router(stage).subscribers:
        arguments = subscriber._connection_args
        assert arguments["auto_offset_reset"] == "earliest"
        assert arguments["enable_auto_commit"] is False
        assert arguments["isolation_level"] == "read_committed"
        assert arguments["group_instance_id"].startswith("slot-0")
        assert arguments["max_poll_interval_ms"] >= 3 * 60_000


def test_every_stage_is_a_role_that_can_be_run() -> None:
    assert set(ROLES) == {stage.name for stage in STAGES} | {JOBS}


def test_producer_waits_for_all_replicas_and_is_idempotent() -> None:
    settings = make_broker(Settings(kafka_bootstrap_servers="127.0.0.1:1"))._connection_kwargs
    assert (settings["acks"], settings["enable_idempotence"]) == ("all", True)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_topics_that_a_consumer_names_equal_the_topology(stage: Stage) -> None:
    named = set()
    for node in ast.walk(ast.parse((ROOT / "consumers" / f"{stage.name}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "schemas.topics":
            named |= {alias.name for alias in node.names if alias.name.isupper()}
    declared = {name for name, topic in vars(topics).items() if topic in (*stage.reads, *stage.writes)}
    assert named <= declared
    assert declared - named <= DELIVERY_WRITES


def test_every_topic_is_written_and_read_by_someone() -> None:
    written = {topic for stage in STAGES for topic in stage.writes} | {t for ts in PRODUCERS.values() for t in ts}
    assert written == set(TOPICS)


def test_imports_point_one_way() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_the_environment_is_read_in_the_settings_only() -> None:
    folders = ("schemas", "streams", "consumers", "api")
    offenders = [
        str(path.relative_to(ROOT))
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if "os.environ" in path.read_text() or "getenv" in path.read_text()
    ]
    assert offenders == []


def test_of_the_consumers_delivery_alone_catches_what_it_does_not_know() -> None:
    catching = {
        str(path.relative_to(ROOT))
        for folder in ("schemas", "streams", "consumers")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler) and (node.type is None or ast.unparse(node.type) == "Exception")
    }
    assert catching == {"consumers/delivery.py"}


def test_the_readme_shows_the_topology_as_it_is() -> None:
    from streams.diagram import mermaid

    assert f"```mermaid\n{mermaid()}\n```" in (ROOT / "README.md").read_text()
