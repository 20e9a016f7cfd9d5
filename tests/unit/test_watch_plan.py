"""What a look at a folder means."""

import hashlib
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from streams.watch import FileState, Plan, plan, under


def a_file(content: str = "text", mtime_ns: int = 1) -> FileState:
    return FileState(len(content), mtime_ns, hashlib.sha256(content.encode()).digest())


def applied(known: Mapping[str, FileState], found: Mapping[str, FileState], steps: Plan) -> dict[str, FileState]:
    after = dict(known)
    after.update({name: found[name] for name in (*steps.upserts, *steps.touched)})
    for name in steps.deletes:
        del after[name]
    return after


names = st.text("ab/", min_size=1, max_size=4)
folders = st.dictionaries(
    names, st.builds(a_file, st.sampled_from(["", "x", "yy", "zz"]), st.integers(1, 3)), max_size=30
)


@given(known=folders, found=folders, live=st.booleans(), unknown=st.sets(names), approved=st.sets(names))
def test_after_the_plan_the_log_says_what_the_folder_says_except_what_is_withheld(
    known: dict[str, FileState],
    found: dict[str, FileState],
    live: bool,
    unknown: set[str],
    approved: set[str],
) -> None:
    steps = plan(known, found, live=live, unknown=unknown, approved=approved)
    withheld = {name: known[name] for name in steps.withheld}
    assert applied(known, found, steps) == {**found, **withheld}
    assert not withheld.keys() & found.keys()


@given(known=folders, found=folders)
def test_a_move_pairs_one_missing_file_with_one_new_file_of_the_same_content(
    known: dict[str, FileState], found: dict[str, FileState]
) -> None:
    steps = plan(known, found, live=True)
    assert len(set(steps.moves.values())) == len(steps.moves)
    for new, old in steps.moves.items():
        assert new in steps.upserts
        assert old in steps.deletes
        assert found[new].sha256 == known[old].sha256


@given(folder=folders)
def test_an_unchanged_folder_needs_nothing(folder: dict[str, FileState]) -> None:
    assert plan(folder, folder, live=False) == Plan()


def test_a_catch_up_of_an_emptied_folder_deletes_nothing() -> None:
    known = {f"{n}.md": a_file(str(n)) for n in range(100)}
    steps = plan(known, {}, live=False)
    assert steps.deletes == ()
    assert set(steps.withheld) == known.keys()


def test_withheld_deletions_do_not_keep_new_files_out() -> None:
    known = {f"{n}.md": a_file(str(n)) for n in range(100)}
    assert plan(known, {"new.md": a_file("new")}, live=False).upserts == ("new.md",)


def test_ten_documents_or_half_the_folder_may_go_without_asking() -> None:
    ten = {f"{n}.md": a_file(str(n)) for n in range(10)}
    assert len(plan(ten, {}, live=False).deletes) == 10
    twenty_two = {f"{n}.md": a_file(str(n)) for n in range(22)}
    half = dict(list(twenty_two.items())[:11])
    assert len(plan(twenty_two, half, live=False).deletes) == 11
    less_than_half = dict(list(twenty_two.items())[:10])
    assert len(plan(twenty_two, less_than_half, live=False).withheld) == 12


def test_live_deletions_are_believed_whatever_their_number() -> None:
    known = {f"{n}.md": a_file(str(n)) for n in range(100)}
    assert len(plan(known, {}, live=True).deletes) == 100


def test_documents_that_cannot_be_seen_are_never_deleted_unasked() -> None:
    known = {"a/1.md": a_file("1"), "b/2.md": a_file("2")}
    steps = plan(known, {"b/2.md": a_file("2")}, live=True, unknown={"a/1.md"})
    assert steps.withheld == ("a/1.md",)
    assert steps.deletes == ()


def test_approved_deletions_are_done() -> None:
    known = {f"{n}.md": a_file(str(n)) for n in range(100)}
    steps = plan(known, {}, live=False, unknown=known, approved=known.keys())
    assert len(steps.deletes) == 100
    assert steps.withheld == ()


def test_a_moved_directory_is_not_a_vanished_one() -> None:
    known = {f"old/{n}.md": a_file(f"text {n}") for n in range(100)}
    found = {name.replace("old", "new"): state for name, state in known.items()}
    steps = plan(known, found, live=False)
    assert steps.withheld == ()
    assert steps.moves == {name.replace("old", "new"): name for name in known}


def test_of_two_equal_files_the_one_with_the_same_base_name_is_the_moved_one() -> None:
    known = {"a/licence.md": a_file("same"), "a/notes.md": a_file("same")}
    steps = plan(known, {"b/notes.md": a_file("same")}, live=True)
    assert steps.moves == {"b/notes.md": "a/notes.md"}


def test_empty_files_are_not_taken_for_moved() -> None:
    assert plan({"a.md": a_file("")}, {"b.md": a_file("")}, live=True).moves == {}


def test_a_new_time_alone_publishes_nothing() -> None:
    steps = plan({"a.md": a_file("x", 1)}, {"a.md": a_file("x", 2)}, live=False)
    assert steps.upserts == ()
    assert steps.touched == ("a.md",)


@given(st.sets(st.text("ab/0.!", min_size=1, max_size=5)), st.text("ab", max_size=2))
def test_under_finds_what_is_inside_a_directory(ids: set[str], directory: str) -> None:
    expected = [name for name in sorted(ids) if not directory or name.startswith(f"{directory}/")]
    assert list(under(sorted(ids), directory)) == expected
