"""Times as people type them."""

from datetime import UTC, datetime, timedelta

import pytest

from cli.moments import moment

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "ago"),
    [("3d", timedelta(days=3)), ("90m", timedelta(minutes=90)), ("2 w", timedelta(weeks=2))],
)
def test_so_long_ago(text: str, ago: timedelta) -> None:
    assert datetime.fromisoformat(moment(text, now=NOW)) == NOW - ago


def test_a_time_without_a_zone_is_one_of_this_machine() -> None:
    assert datetime.fromisoformat(moment("2026-01-31T12:00")) == datetime(2026, 1, 31, 12).astimezone()
    assert moment("2026-01-31T12:00:00+07:00") == "2026-01-31T12:00:00+07:00"


def test_anything_else_is_left_to_the_server() -> None:
    assert moment("WzAsMSwyLG51bGxd") == "WzAsMSwyLG51bGxd"
