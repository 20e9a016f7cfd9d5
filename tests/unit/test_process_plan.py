"""Which processes `leat up` starts."""

import pytest

from infra.local.roles import plan


def test_one_machine_runs_four_processes() -> None:
    assert [name for name, _ in plan({})] == ["index", "pipeline", "answerer", "api"]


def test_a_replicated_consumer_leaves_the_pipeline() -> None:
    planned = dict(plan({"chunker": 2}))
    assert planned["pipeline"] == ("embedder", "indexer", "recorder", "jobs")
    assert planned["chunker"] == planned["chunker-2"] == ("chunker",)


def test_the_whole_pipeline_can_be_replicated() -> None:
    planned = dict(plan({"pipeline": 2, "api": 3}))
    assert planned["pipeline"] == planned["pipeline-2"] == ("chunker", "embedder", "indexer", "recorder", "jobs")
    assert [name for name in planned if name.startswith("api")] == ["api", "api-2", "api-3"]


@pytest.mark.parametrize("replicas", [{"index": 2}, {"nobody": 1}, {"chunker": 0}])
def test_what_cannot_be_replicated_is_refused(replicas: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"index|nobody|at least"):
        plan(replicas)
