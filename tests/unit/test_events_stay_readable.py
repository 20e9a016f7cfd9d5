"""Events of every released version stay readable: records of years ago are replayed by the consumers of today.

``tests/golden/events/<topic>/<version>-<case>.json`` holds a record's value as a release wrote it, byte for byte. Files
are added with a release and never changed.
"""

from pathlib import Path

import pytest
from pydantic import TypeAdapter

from schemas.topics import TOPICS, Topic
from streams.retry import RetryRequested

FOLDER = Path(__file__).parents[1] / "golden" / "events"
WRITTEN = {topic.name: topic for topic in TOPICS}
CASES = sorted(FOLDER.glob("*/*.json"))


def adapter_of(topic: Topic) -> TypeAdapter[object]:
    types = topic.values or (RetryRequested,)
    adapter: TypeAdapter[object] = TypeAdapter(types[0])
    for event_type in types[1:]:
        adapter = TypeAdapter(types[0] | event_type)
    return adapter


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_event_of_an_earlier_release_is_read(path: Path) -> None:
    adapter_of(WRITTEN[path.parent.name]).validate_json(path.read_bytes(), strict=False)


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_fields_that_a_newer_release_adds_are_ignored(path: Path) -> None:
    newer = path.read_bytes().rstrip()[:-1] + b', "added_by_a_newer_release": {"x": [1]}}'
    adapter_of(WRITTEN[path.parent.name]).validate_json(newer)


def test_every_topic_of_ours_has_a_golden_event() -> None:
    with_values = {topic.name for topic in TOPICS if topic.name != "leat.dead-letters.v1"}
    assert {path.parent.name for path in CASES} == with_values
