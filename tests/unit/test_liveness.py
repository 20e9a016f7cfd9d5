"""Who counts as alive."""

from dataclasses import replace

from streams.liveness import ProgressWatch, Standing

LAGGING = Standing("leat.indexer.chunks", done=10, behind=5)


def watch() -> ProgressWatch:
    watch = ProgressWatch(longest_batch_s=300.0, still_s=45.0)
    assert watch.stalled([LAGGING], 0.0) == ()
    return watch


def test_consumer_that_stands_still_before_records_is_not_alive() -> None:
    found = watch()
    assert found.stalled([LAGGING], 44.0) == ()
    assert found.stalled([LAGGING], 46.0) == ("leat.indexer.chunks",)


def test_movement_counts_from_the_last_commit() -> None:
    found = watch()
    assert found.stalled([replace(LAGGING, done=11)], 40.0) == ()
    assert found.stalled([replace(LAGGING, done=11)], 80.0) == ()


def test_nothing_to_do_is_no_standstill_and_starts_the_clock_anew() -> None:
    found = watch()
    assert found.stalled([replace(LAGGING, behind=0)], 100.0) == ()
    assert found.stalled([LAGGING], 140.0) == ()


def test_consumer_that_waits_for_a_dependency_is_alive() -> None:
    assert watch().stalled([replace(LAGGING, held=True)], 1000.0) == ()


def test_long_batch_is_work_until_the_brokers_take_it_away() -> None:
    found = watch()
    assert found.stalled([replace(LAGGING, busy_since=1.0)], 200.0) == ()
    assert found.stalled([replace(LAGGING, busy_since=1.0)], 302.0) == ("leat.indexer.chunks",)
