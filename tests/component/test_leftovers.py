"""Parts that wait for parts: given up when none can come any more, and not a moment before."""

from collections.abc import Mapping

from consumers.leftovers import Leftovers
from schemas.topics import CHUNKS, Topic
from streams.assemble import Assembler
from tests.unit.test_index_plan import chunked


class Scene:
    """An assembler that holds the first of two parts at offset 4, and the brokers' view of it."""

    def __init__(self) -> None:
        self.assembler = Assembler()
        self.delivered_upto, self.end, self.chunker_lag = 5, 5, 0
        self.released: list[Mapping[int, int]] = []
        self.add(1, 4)
        self.leftovers = Leftovers({CHUNKS: self}, commits=self, upstream=["chunker"], lag=self.lag, ends=self.ends)

    def add(self, number: int, offset: int) -> bool:
        part = chunked(f"text {number}").model_copy(update={"part": number, "parts": 3, "digest": b"d"})
        return self.assembler.add(part, partition=0, offset=offset) is not None

    def incomplete(self) -> frozenset:
        return self.assembler.incomplete()

    def give_up(self, given) -> Mapping[int, int]:
        for one in given:
            self.assembler.give_up(one)
        return self.assembler.holding()

    async def lag(self) -> dict[str, int]:
        return {"chunker": self.chunker_lag, "indexer": 1}

    async def ends(self, topic: Topic) -> dict[int, int]:
        return {0: self.end}

    def delivered(self, topic: Topic) -> dict[int, int]:
        return {0: self.delivered_upto}

    async def release(self, topic: Topic, holding: Mapping[int, int]) -> None:
        self.released.append(holding)


async def test_parts_are_given_up_at_the_second_look_when_nothing_can_follow() -> None:
    scene = Scene()
    await scene.leftovers.run()
    assert scene.released == []
    await scene.leftovers.run()
    assert scene.released == [{}]
    assert not scene.incomplete()


async def test_parts_are_kept_while_the_chunker_has_records_before_it() -> None:
    scene = Scene()
    scene.chunker_lag = 1
    for _ in range(3):
        await scene.leftovers.run()
    assert scene.released == []


async def test_parts_are_kept_while_the_topic_has_records_that_were_not_looked_at() -> None:
    scene = Scene()
    scene.end = 6
    for _ in range(3):
        await scene.leftovers.run()
    assert scene.released == []


async def test_a_part_that_came_between_two_looks_buys_time() -> None:
    scene = Scene()
    await scene.leftovers.run()
    scene.add(2, 5)
    scene.delivered_upto = scene.end = 6
    await scene.leftovers.run()
    assert scene.released == []
    assert scene.add(3, 6)
