"""The watcher on real folders with real notifications; the log and its memory are in memory."""

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra.files import folder
from infra.files.folder import RootGone
from infra.files.folder_log import FolderLog, FolderLogParts, WatchReport
from infra.files.watching import watch
from infra.settings import Settings
from streams.watch import WatchedFolder
from tests.fakes.watching import InMemoryBlobs, InMemoryChangeLog, InMemoryWatchedFiles

DEADLINE_S = 60.0


@dataclass
class Watching:
    root: Path
    log: InMemoryChangeLog
    memory: InMemoryWatchedFiles
    blobs: InMemoryBlobs
    reports: list[WatchReport]
    settings: Settings

    @property
    def folder(self) -> WatchedFolder:
        return WatchedFolder("default", "default", os.path.realpath(self.root))

    @property
    def withheld(self) -> set[str]:
        return set(self.memory.withheld.get(self.folder, {}))

    def write(self, name: str, text: str = "some text") -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def texts(self) -> dict[str, str | None]:
        return {name: change.text for name, change in self.log.fold().items()}

    async def look_once(self) -> None:
        await watch(
            self.settings,
            root=self.root,
            changes=self.log,
            known=self.memory,
            blobs=self.blobs,
            on_report=self.reports.append,
            once=True,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.reports.clear()
        task = asyncio.create_task(
            watch(
                self.settings,
                root=self.root,
                changes=self.log,
                known=self.memory,
                blobs=self.blobs,
                on_report=self.reports.append,
            )
        )
        try:
            await until(lambda: any(report.caught_up for report in self.reports))
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        await asyncio.sleep(0.002)


@pytest.fixture
def watching(tmp_path: Path) -> Watching:
    root = tmp_path / "folder"
    root.mkdir()
    settings = Settings(_env_file=None, max_document_bytes=1_000_000)  # type: ignore[call-arg]
    return Watching(root, InMemoryChangeLog(), InMemoryWatchedFiles(), InMemoryBlobs(), [], settings)


async def test_creates_edits_renames_and_deletes_are_published_as_they_happen(watching: Watching) -> None:
    async with watching.running():
        path = watching.write("notes/one.md", "first")
        await until(lambda: watching.texts() == {"notes/one.md": "first"})
        path.write_text("second")
        await until(lambda: watching.texts() == {"notes/one.md": "second"})
        path.rename(watching.root / "notes" / "two.md")
        await until(lambda: watching.texts() == {"notes/two.md": "second"})
        assert watching.log.fold()["notes/two.md"].moved_from == "notes/one.md"
        (watching.root / "notes" / "two.md").unlink()
        await until(lambda: watching.texts() == {})


async def test_a_restart_publishes_only_what_happened_meanwhile(watching: Watching) -> None:
    for name in ("kept.md", "edited.md", "deleted.md", "moved.md"):
        watching.write(name, f"text of {name}")
    await watching.look_once()
    watching.log.records.clear()
    await watching.look_once()
    assert watching.log.records == []

    watching.write("edited.md", "new text")
    (watching.root / "deleted.md").unlink()
    (watching.root / "moved.md").rename(watching.root / "arrived.md")
    os.utime(watching.root / "kept.md", ns=(1, 1))
    watching.write("created.md")
    await watching.look_once()
    assert sorted(watching.log.upserts()) == ["arrived.md", "created.md", "edited.md"]
    assert sorted(watching.log.deletes()) == ["deleted.md", "moved.md"]


async def test_a_change_the_log_did_not_acknowledge_is_published_after_a_restart(watching: Watching) -> None:
    watching.write("a.md")
    watching.log.away = True
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(watching.look_once(), 0.3)
    assert watching.memory.files == {}
    watching.log.away = False
    await watching.look_once()
    assert watching.log.upserts() == ["a.md"]


async def test_changes_made_while_the_log_is_away_arrive_when_it_is_back(watching: Watching) -> None:
    async with watching.running():
        watching.log.away = True
        watching.write("a.md", "one")
        watching.write("b.md", "two")
        await until(lambda: watching.log.refused > 0)
        watching.write("a.md", "three")
        watching.log.away = False
        await until(lambda: watching.texts() == {"a.md": "three", "b.md": "two"})


# Editors


async def test_saving_through_a_temporary_file_and_a_rename_is_one_edit(watching: Watching) -> None:
    watching.write("notes.md", "before")
    async with watching.running():
        temporary = watching.write(".notes.md.tmp", "after")
        temporary.replace(watching.root / "notes.md")
        await until(lambda: watching.texts() == {"notes.md": "after"})
        await asyncio.sleep(0.1)
    assert watching.log.upserts() == ["notes.md", "notes.md"]
    assert watching.log.deletes() == []


async def test_moving_the_original_to_a_backup_first_deletes_nothing(watching: Watching) -> None:
    path = watching.write("notes.md", "before")
    async with watching.running():
        path.rename(watching.root / "notes.md~")
        await asyncio.sleep(0.015)
        watching.write("notes.md", "after")
        await until(lambda: watching.texts() == {"notes.md": "after"})
        (watching.root / "notes.md~").unlink()
        await asyncio.sleep(0.1)
    assert watching.log.deletes() == []


async def test_a_file_that_is_truncated_and_then_written_is_not_published_empty(watching: Watching) -> None:
    path = watching.write("notes.md", "before")
    async with watching.running():
        with path.open("w") as file:
            file.flush()
            await asyncio.sleep(0.015)
            file.write("after")
        await until(lambda: watching.texts() == {"notes.md": "after"})
    assert all(change and change.text != "" for _, change, _ in watching.log.records)


async def test_a_file_that_stays_empty_is_published_empty(watching: Watching) -> None:
    async with watching.running():
        watching.write("empty.md", "")
        await until(lambda: watching.texts() == {"empty.md": ""})


# Names, links, strange files


async def test_names_that_are_not_utf8_are_percent_encoded(watching: Watching) -> None:
    watching.write(os.fsdecode(b"caf\xe9.md"), "before")
    async with watching.running():
        assert watching.texts() == {"caf%E9.md": "before"}
        watching.write(os.fsdecode(b"na\xefve.md"), "live")
        watching.write("other.md", "also")
        await until(lambda: watching.texts() == {"caf%E9.md": "before", "na%EFve.md": "live", "other.md": "also"})


async def test_links_are_followed_only_inside_the_folder_and_devices_not_at_all(
    watching: Watching, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.md"
    secret.write_text("not yours")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x.md").write_text("not yours")
    watching.write("real.md", "real")
    (watching.root / "inside.md").symlink_to("real.md")
    (watching.root / "outside.md").symlink_to(secret)
    (watching.root / "directory").symlink_to(tmp_path / "outside")
    (watching.root / "dangling.md").symlink_to("nowhere.md")
    (watching.root / "loop").symlink_to(".")
    os.mkfifo(watching.root / "fifo.md")
    async with watching.running():
        (tmp_path / "outside" / "x.md").write_text("still not yours")
        watching.write("last.md", "last")
        await until(lambda: "last.md" in watching.texts())
    assert watching.texts() == {"inside.md": "real", "real.md": "real", "last.md": "last"}


async def test_bytes_large_files_and_oversize_files_travel_each_in_their_way(watching: Watching) -> None:
    (watching.root / "latin.txt").write_bytes(b"caf\xe9")
    (watching.root / "binary.txt").write_bytes(b"a\x00b")
    watching.write("large.md", "x" * 300_000)
    watching.write("oversize.md", "x" * 1_000_001)
    await watching.look_once()
    fold = watching.log.fold()
    assert fold["latin.txt"].content_base64 == b"caf\xe9"
    assert fold["binary.txt"].content_base64 == b"a\x00b"
    large = fold["large.md"].content_reference
    assert large is not None
    assert watching.blobs.blobs["default", large.sha256] == b"x" * 300_000
    oversize = fold["oversize.md"].content_reference
    assert oversize is not None
    assert oversize.size_bytes == 1_000_001
    assert ("default", oversize.sha256) not in watching.blobs.blobs


async def test_ignored_files_are_not_published_and_go_when_a_pattern_says_so(watching: Watching) -> None:
    watching.write(".leatignore", "drafts/\n")
    watching.write("drafts/a.md")
    watching.write("b.md")
    watching.write("node_modules/c.md")
    async with watching.running():
        assert watching.texts().keys() == {"b.md"}
        watching.write("drafts/d.md")
        watching.write(".leatignore", "b.md\n")
        await until(lambda: watching.texts().keys() == {"drafts/a.md", "drafts/d.md"})


async def test_a_directory_that_is_renamed_moves_its_documents(watching: Watching) -> None:
    for n in range(30):
        watching.write(f"old/deep/{n}.md", f"text {n}")
    async with watching.running():
        (watching.root / "old").rename(watching.root / "new")
        await until(lambda: watching.texts().keys() == {f"new/deep/{n}.md" for n in range(30)})
    assert all(change.moved_from for change in watching.log.fold().values())


async def test_files_written_at_once_into_new_directories_are_all_found(watching: Watching) -> None:
    async with watching.running():
        for n in range(300):
            watching.write(f"a{n % 7}/b{n % 5}/c{n % 3}/{n}.md", f"text {n}")
        await until(lambda: len(watching.texts()) == 300)
    bulk = [record for record in watching.log.records if record[2]]
    assert bulk, "a load of 300 files goes down the bulk lane"


# The vanished folder (check A20)


async def filled(watching: Watching, count: int = 30) -> None:
    for n in range(count):
        watching.write(f"{n}.md", f"text {n}")
    await watching.look_once()


async def test_a_folder_emptied_while_we_were_away_deletes_nothing_until_approved(watching: Watching) -> None:
    await filled(watching)
    shutil.rmtree(watching.root)
    watching.root.mkdir()
    watching.write("new.md", "new")
    async with watching.running():
        assert len(watching.texts()) == 31
        assert len(watching.withheld) == 30
        assert await watching.memory.approve("default", "default") == 30
        await until(lambda: watching.texts() == {"new.md": "new"})
        await until(lambda: not watching.withheld)


async def test_withheld_deletions_stay_withheld_over_restarts_and_growth(watching: Watching) -> None:
    await filled(watching, 12)
    for n in range(11):
        (watching.root / f"{n}.md").unlink()
    await watching.look_once()
    assert len(watching.withheld) == 11
    for n in range(100, 200):
        watching.write(f"{n}.md")
    await watching.look_once()
    await watching.look_once()
    assert len(watching.withheld) == 11
    assert watching.log.deletes() == []


async def test_a_folder_that_comes_back_withholds_nothing_and_publishes_nothing(watching: Watching) -> None:
    await filled(watching)
    away = watching.root.with_name("away")
    watching.root.rename(away)
    await watching.look_once()
    assert len(watching.withheld) == 30
    away.rename(watching.root)
    await watching.look_once()
    assert watching.withheld == set()
    assert watching.log.deletes() == []
    assert len(watching.log.upserts()) == 30


async def test_a_root_that_vanishes_while_watched_deletes_nothing_and_is_watched_again(watching: Watching) -> None:
    await filled(watching)
    away = watching.root.with_name("away")
    async with watching.running():
        watching.root.rename(away)
        await until(lambda: len(watching.withheld) == 30)
        (away / "3.md").write_text("changed meanwhile")
        away.rename(watching.root)
        await until(lambda: watching.texts()["3.md"] == "changed meanwhile")
        assert watching.withheld == set()
        watching.write("4.md", "changed later")
        await until(lambda: watching.texts()["4.md"] == "changed later")
    assert watching.log.deletes() == []


async def test_deletions_of_a_folder_that_stays_away_can_be_approved(watching: Watching) -> None:
    await filled(watching)
    shutil.rmtree(watching.root)
    async with watching.running():
        assert len(watching.withheld) == 30
        await watching.memory.approve("default", "default")
        await until(lambda: watching.texts() == {})
        await until(lambda: not watching.withheld)


async def test_live_deletions_apply_at_once_whatever_their_number(watching: Watching) -> None:
    await filled(watching)
    async with watching.running():
        for path in watching.root.iterdir():
            path.unlink()
        await until(lambda: watching.texts() == {})
    assert watching.withheld == set()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_an_unreadable_directory_deletes_nothing_and_is_listed(watching: Watching) -> None:
    watching.write("locked/a.md")
    await watching.look_once()
    (watching.root / "locked").chmod(0)
    try:
        await watching.look_once()
    finally:
        (watching.root / "locked").chmod(0o755)
    assert watching.log.deletes() == []
    assert "locked" in watching.memory.unreadable[watching.folder]


async def test_a_file_that_can_be_read_again_is_no_longer_listed(watching: Watching) -> None:
    parts = FolderLogParts(watching.log, watching.memory, watching.blobs, 1_000, on_report=lambda _: None)
    folder = FolderLog(watching.folder, parts, look_again=lambda _: None)
    await folder.found_unreadable({"a.md": "permission denied", "b.md": "permission denied"})
    await folder.found_unreadable({}, among={"a.md"})
    assert watching.memory.unreadable[watching.folder] == {"b.md": "permission denied"}
    await folder.found_unreadable({})
    assert watching.memory.unreadable[watching.folder] == {}


async def test_a_folder_that_never_was_is_refused(watching: Watching) -> None:
    watching.root.rmdir()
    with pytest.raises(RootGone):
        await watching.look_once()


# Size


@pytest.mark.slow
async def test_ten_thousand_files_are_caught_up_with_and_read_only_once(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = 0
    read = folder.read

    def counting(entry: folder.Entry, *, max_bytes: int) -> folder.Reading:
        nonlocal readings
        readings += 1
        return read(entry, max_bytes=max_bytes)

    monkeypatch.setattr(folder, "read", counting)
    for n in range(10_000):
        watching.write(f"d{n % 100}/{n}.md", f"# Heading {n}\n\nText number {n}.\n")
    await watching.look_once()
    assert len(watching.texts()) == 10_000
    first, records = readings, len(watching.log.records)
    await watching.look_once()
    assert len(watching.log.records) == records
    # Files that were read within a tick of the clock after their last change are read again, others are not.
    assert readings - first < first / 10
    async with watching.running():
        for n in range(20):
            path = watching.write(f"d5/{n * 100 + 5}.md", f"edit {n}")
            await until(lambda n=n, path=path: watching.texts()[f"d5/{path.name}"] == f"edit {n}")  # type: ignore[misc]
    assert len(watching.log.records) == records + 20
