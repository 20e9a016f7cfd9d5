"""Reading an answer's stream, and finding where Leat runs."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.client import StreamEvent, parse_events
from cli.connection import connect
from cli.exits import UNREACHABLE, Refused


def a_stream(texts: list[str], newline: str = "\n") -> bytes:
    events = [
        newline.join([f"id: 1-{n}", "event: token", "data: " + json.dumps({"text": text}, ensure_ascii=False), "", ""])
        for n, text in enumerate(texts)
    ]
    return "".join(events).encode()


@given(st.lists(st.text()), st.integers(1, 7), st.sampled_from(["\n", "\r\n"]))
def test_any_text_in_any_cut_comes_out_as_it_went_in(texts: list[str], size: int, newline: str) -> None:
    raw = a_stream(texts, newline)
    chunks = [raw[at : at + size] for at in range(0, len(raw), size)]
    assert [event.data["text"] for event in parse_events(chunks)] == texts


def test_comments_are_passed_over_and_ids_are_kept() -> None:
    raw = b': heartbeat\n\nid: 2-5\nevent: done\ndata: {"answered": true}\n\n'
    assert list(parse_events([raw])) == [StreamEvent("2-5", "done", {"answered": True})]


def test_an_event_that_was_cut_off_is_not_delivered() -> None:
    assert list(parse_events([b'event: token\ndata: {"text": "x"}\n'])) == []


def test_no_run_file_ends_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="leat up") as refused:
        connect(tmp_path)
    assert refused.value.code == UNREACHABLE


def test_the_run_file_says_where_leat_runs(tmp_path: Path) -> None:
    run = {
        "api_url": "http://127.0.0.1:9000/", "kafka_bootstrap_servers": "127.0.0.1:9", "postgres_dsn": "postgresql://x",
        "redis_url": "redis://y", "token": "secret", "pids": {"api": 1},
    }  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps(run))
    found = connect(tmp_path)
    assert (found.api_url, found.token, found.pids) == ("http://127.0.0.1:9000", "secret", {"api": 1})
    assert found.settings.postgres_dsn == "postgresql://x"


def test_another_machine_is_found_by_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAT_API_URL", "http://leat.example:80/")
    monkeypatch.setenv("LEAT_API_TOKEN", "key")
    found = connect()
    assert (found.api_url, found.token) == ("http://leat.example:80", "key")
