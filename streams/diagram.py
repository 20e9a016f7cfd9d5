"""The pipeline as a Mermaid diagram, drawn from the topology; the README holds a copy, and a test holds it to this."""

from schemas.topics import DEAD_LETTERS, INDEX_COMMITS, Topic
from streams.topology import PRODUCERS, STAGES

# Every stage writes dead letters: drawn, they would hide the picture.
_LEFT_OUT = {DEAD_LETTERS}


def mermaid() -> str:
    """A left-to-right flow chart: topics as cylinders, stages as boxes, stores as rounded boxes."""
    lines = ["flowchart LR"]
    topics = [topic for stage in STAGES for topic in (*stage.reads, *stage.writes) if topic not in _LEFT_OUT]
    lines += [f"    {_id(topic)}[({topic.name.removeprefix('leat.')})]" for topic in dict.fromkeys(topics)]
    for producer, written in PRODUCERS.items():
        name = "p_" + "".join(c for c in producer if c.isalnum())
        lines += [f"    {name}>{producer}] --> {_id(topic)}" for topic in written if topic not in _LEFT_OUT]
    for stage in STAGES:
        lines.append(f"    {stage.name}[{stage.name}]")
        lines += [f"    {_id(topic)} --> {stage.name}" for topic in stage.reads if topic not in _LEFT_OUT]
        lines += [
            f"    {stage.name} --> {_id(topic)}"
            for topic in stage.writes
            if topic not in _LEFT_OUT and topic not in stage.reads and topic is not INDEX_COMMITS
        ]
        if INDEX_COMMITS in stage.writes:
            lines.append(f"    {stage.name} -.outcomes.-> {_id(INDEX_COMMITS)}")
        lines += [f"    {stage.name} --- {store}([{store}])" for store in stage.stores]
    return "\n".join(lines)


def _id(topic: Topic) -> str:
    return "t_" + topic.name.removeprefix("leat.").replace(".", "_").replace("-", "_")
