"""One suite for everything that calls itself a document ledger: the fold of the documents topic."""

import asyncio
import random
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.access import AccessLevel
from schemas.documents import Change, DocumentKey
from streams.model import Admission, Verdict
from tests.contract.conftest import Stores
from tests.store_data import a_request, an_origin, new_tenant

_numbers = count()


def a_key(tenant: str | None = None, name: str = "guide.md") -> DocumentKey:
    return DocumentKey(tenant or new_tenant(), "default", name)


async def admit(stores: Stores, *requests: object) -> list[Admission]:
    return await stores.ledger.admit(requests)  # type: ignore[arg-type]


async def test_a_newer_revision_is_accepted_and_becomes_the_head(stores: Stores) -> None:
    key = a_key()
    await admit(stores, a_request(key, 5))
    [admission] = await admit(stores, a_request(key, 7))
    assert admission.verdict is Verdict.ACCEPTED
    assert admission.head_revision == 7
    assert await stores.ledger.heads([key, a_key()]) == {key: 7}


async def test_an_older_revision_is_superseded_and_told_where_the_winner_stands(stores: Stores) -> None:
    key = a_key()
    await admit(stores, a_request(key, 7, offset=70))
    [admission] = await admit(stores, a_request(key, 5, offset=71))
    assert admission.verdict is Verdict.SUPERSEDED
    assert admission.head_revision == 7
    assert admission.head_origin is not None
    assert admission.head_origin.offset == 70


async def test_what_is_only_admitted_is_not_in_force_and_a_deletion_is_at_once(stores: Stores) -> None:
    key = a_key()
    await admit(stores, a_request(key, 5), a_request(key, 7))
    assert await stores.ledger.in_force([key, a_key()]) == {key: -1}
    await admit(stores, a_request(key, 9, Change.DELETE), a_request(key, 11))
    assert await stores.ledger.in_force([key]) == {key: 9}


async def test_a_redelivered_change_is_accepted_again(stores: Stores) -> None:
    key = a_key()
    request = a_request(key, 5)
    first = await admit(stores, request)
    again = await admit(stores, request)
    assert [a.verdict for a in first + again] == [Verdict.ACCEPTED] * 2
    assert first[0].document_key == again[0].document_key


async def test_the_winner_published_again_moves_on_and_needs_no_work(stores: Stores) -> None:
    key = a_key()
    await admit(stores, a_request(key, 7, offset=10))
    [again] = await admit(stores, a_request(key, 7, offset=12))
    [loser] = await admit(stores, a_request(key, 6, offset=13))
    assert again.verdict is Verdict.KNOWN
    assert loser.head_origin is not None
    assert loser.head_origin.offset == 12
    assert again.content_at == (0, 12)


async def test_an_earlier_copy_of_the_newest_change_is_worked_on_again(stores: Stores) -> None:
    key = a_key()
    await admit(stores, a_request(key, 7, offset=12))
    [earlier] = await admit(stores, a_request(key, 7, offset=10))
    assert earlier.verdict is Verdict.ACCEPTED
    assert earlier.content_at == (0, 12)


async def test_changes_of_one_document_in_one_batch_are_folded_in_order(stores: Stores) -> None:
    key, other = a_key(), a_key()
    admissions = await admit(
        stores, a_request(key, 5), a_request(other, 1), a_request(key, 7, Change.DELETE), a_request(key, 6)
    )
    assert [a.verdict for a in admissions] == [Verdict.ACCEPTED] * 3 + [Verdict.SUPERSEDED]
    assert await stores.ledger.heads([key]) == {key: 7}


async def test_an_access_change_keeps_what_it_does_not_name(stores: Stores) -> None:
    key = a_key()
    await admit(stores, a_request(key, 1, level=AccessLevel.INTERNAL, groups=("hr",)))
    [level] = await admit(stores, a_request(key, 2, Change.ACCESS, level=AccessLevel.RESTRICTED, groups=None))
    assert (level.access_level, level.allowed_groups) == (AccessLevel.RESTRICTED, ("hr",))
    [groups] = await admit(stores, a_request(key, 3, Change.ACCESS, level=None, groups=()))
    assert (groups.access_level, groups.allowed_groups) == (AccessLevel.RESTRICTED, ())
    assert groups.content_at == (0, 1)


async def test_text_coming_back_under_an_access_change_is_accepted_once(stores: Stores) -> None:
    key = a_key()
    access = a_request(key, 20, Change.ACCESS, level=AccessLevel.INTERNAL)
    await admit(stores, a_request(key, 10))
    await admit(stores, access)
    [merged] = await admit(stores, a_request(key, 20, offset=21, level=AccessLevel.INTERNAL))
    [twice] = await admit(stores, a_request(key, 20, offset=22, level=AccessLevel.INTERNAL))
    [redelivered] = await admit(stores, access)
    assert merged.verdict is Verdict.ACCEPTED
    assert (twice.verdict, redelivered.verdict) == (Verdict.KNOWN, Verdict.KNOWN)
    assert redelivered.content_at == (0, 22)


async def test_an_access_change_of_an_unknown_or_deleted_document_brings_nothing_to_light(stores: Stores) -> None:
    unknown, deleted = a_key(), a_key()
    await admit(stores, a_request(deleted, 1), a_request(deleted, 2, Change.DELETE))
    admissions = await admit(stores, a_request(unknown, 3, Change.ACCESS), a_request(deleted, 3, Change.ACCESS))
    assert [(a.verdict, a.content_at) for a in admissions] == [(Verdict.ACCEPTED, None)] * 2


async def test_deleting_an_unknown_document_keeps_late_text_out(stores: Stores) -> None:
    key = a_key()
    await admit(stores, a_request(key, 9, Change.DELETE))
    [late] = await admit(stores, a_request(key, 8))
    assert late.verdict is Verdict.SUPERSEDED


async def test_content_of_an_earlier_epoch_is_not_looked_for_in_the_new_log(stores: Stores) -> None:
    key = a_key()
    await admit(stores, a_request(key, 10))
    newer = a_request(key, (1 << 48) | 2, Change.ACCESS, origin=an_origin(2, epoch=1))
    [admission] = await admit(stores, newer)
    assert admission.verdict is Verdict.ACCEPTED
    if "Postgres" in type(stores.ledger).__name__:
        assert admission.content_at is None


_changes = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.integers(1, 8),
        st.sampled_from([Change.UPSERT, Change.DELETE]),
    ),
    min_size=1,
    max_size=20,
)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(changes=_changes, seed=st.integers(0, 2**16), cut=st.integers(0, 20))
async def test_in_any_order_and_with_duplicates_the_highest_revision_wins(
    stores: Stores, changes: list[tuple[int, int, Change]], seed: int, cut: int
) -> None:
    """A revision is one change: equal revisions of a document are equal changes."""
    first = {(name, revision): change for name, revision, change in changes}
    tenant = f"{new_tenant()}-{next(_numbers)}"
    keys = [a_key(tenant, f"{n}.md") for n in range(3)]
    requests = [a_request(keys[name], revision, change) for (name, revision), change in first.items()] * 2
    random.Random(seed).shuffle(requests)
    await stores.ledger.admit(requests[:cut])
    await stores.ledger.admit(requests[cut:])
    highest: dict[DocumentKey, int] = {}
    for name, revision in first:
        highest[keys[name]] = max(highest.get(keys[name], 0), revision)
    assert await stores.ledger.heads(keys) == highest


async def test_batches_in_opposite_order_do_not_deadlock(stores: Stores) -> None:
    tenant = new_tenant()
    keys = [a_key(tenant, f"{n:03}.md") for n in range(50)]
    batches = [[a_request(key, round_) for key in (keys if round_ % 2 else keys[::-1])] for round_ in range(1, 17)]
    await asyncio.gather(*(stores.ledger.admit(batch) for batch in batches))
    assert await stores.ledger.heads(keys) == dict.fromkeys(keys, 16)


@pytest.mark.parametrize("size", [0, 1])
async def test_a_batch_of_any_size_has_as_many_answers(stores: Stores, size: int) -> None:
    assert len(await admit(stores, *[a_request(a_key(), 1) for _ in range(size)])) == size
