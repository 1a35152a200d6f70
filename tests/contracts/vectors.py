"""What every vector store must do, blocking and on an event loop."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.records import MAX_ID_CHARS, Scope
from langchain_ctxmgr.storage.vectors import (
    BM25,
    DENSE,
    EPISODE,
    HAPPENING,
    TERMS,
    DenseVectors,
    Point,
    SparseVector,
    VectorQuery,
    VectorStore,
    shelf,
)

EMBEDDING = DenseVectors(name="test-embedding", size=4)

ALICE = Scope(tenant_id="acme", thread_id="t1", user_id="alice")
BOB = Scope(tenant_id="acme", thread_id="t2", user_id="bob")
OTHER = Scope(tenant_id="globex", thread_id="t1", user_id="alice")


def point(seq, scope=ALICE, terms=(1,), *, slot=None, at=None, dense=None, **payload):
    ones = [1.0] * len(terms)
    return Point(
        id=seq,
        payload={
            "tenant_id": scope.tenant_id,
            "thread_id": scope.thread_id,
            "user_id": scope.user_id,
            "kind": "episodic",
            "role": "human",
            "slot": seq if slot is None else slot,
            "branch": 0,
            "at": 1_700_000_000.0 + seq if at is None else at,
            **payload,
        },
        sparse={BM25: SparseVector(terms, ones), TERMS: SparseVector(terms, ones)},
        dense={} if dense is None else {DENSE: dense},
    )


def by_term(term=1, limit=10, using=BM25, **times):
    return VectorQuery(using, SparseVector((term,), (1.0,)), limit, **times)


def ids(answer):
    return [hit.id for hit in answer]


class VectorStoreContract:
    """Subclass with a `store` fixture (opened for `EMBEDDING`) and `keyword_store` (for none)."""

    @pytest.fixture
    def store(self) -> Iterator[VectorStore]:
        raise NotImplementedError

    @pytest.fixture
    def keyword_store(self) -> Iterator[VectorStore]:
        raise NotImplementedError

    # -- finding ------------------------------------------------------------------------

    def test_a_stored_point_is_found_at_once_by_each_of_its_vectors(self, store):
        store.upsert([point(1, terms=(1, 2), dense=[1, 0, 0, 0]), point(2, terms=(3,))])
        answers = store.query(
            ALICE,
            [by_term(2), by_term(2, using=TERMS), VectorQuery(DENSE, [1.0, 0, 0, 0], 5)],
        )
        assert [ids(answer) for answer in answers] == [[1], [1], [1]]
        assert answers[2][0].score == pytest.approx(1.0, abs=1e-3)

    def test_hits_come_best_first(self, store):
        store.upsert(
            [point(seq, dense=[1.0, seq / 10, 0, 0], terms=(1, 10 + seq)) for seq in range(1, 6)]
        )
        (answer,) = store.query(ALICE, [VectorQuery(DENSE, [1.0, 0, 0, 0], 3)])
        assert ids(answer) == [1, 2, 3]
        assert [hit.score for hit in answer] == sorted((h.score for h in answer), reverse=True)

    def test_ties_at_the_limit_go_to_the_lower_ids(self, store):
        store.upsert([point(seq) for seq in [*range(21, 41), *range(20, 0, -1)]])
        (answer,) = store.query(ALICE, [by_term(limit=7)])
        assert ids(answer) == [1, 2, 3, 4, 5, 6, 7]

    @pytest.mark.parametrize("before_slot", [8, 15, 100])
    def test_ties_of_embeddings_before_a_slot_go_to_the_lower_ids(self, store, before_slot):
        store.upsert([point(seq, dense=[1.0, 0, 0, 0]) for seq in range(40, 0, -1)])
        query = VectorQuery(DENSE, [1.0, 0, 0, 0], 7)
        (answer,) = store.query(ALICE, [query], before_slot=before_slot)
        assert ids(answer) == [1, 2, 3, 4, 5, 6, 7]

    def test_what_happened_is_on_the_shelves_of_its_user_and_thread(self, store):
        beside = Scope(tenant_id="acme", thread_id="t1/memories/m", user_id="alice")
        store.upsert([point(1), point(2, beside, kind=EPISODE), point(3, beside, kind=HAPPENING)])
        shelves = [shelf(user_id="alice"), shelf(thread_id="t1")]
        for tenant_id, name, found in [
            *(("acme", name, [2, 3]) for name in shelves),
            *(("globex", name, []) for name in shelves),
            ("acme", shelf(user_id="bob"), []),
            ("acme", "t1/memories/m", [2, 3]),
        ]:
            (answer,) = store.query(Scope(tenant_id=tenant_id, thread_id=name), [by_term()])
            assert ids(answer) == found
        (answer,) = store.query(Scope(tenant_id="acme", user_id="alice"), [by_term()])
        assert ids(answer) == [1, 3]
        assert store.count(Scope(tenant_id="acme")) == 3
        store.delete(Scope(tenant_id="acme", thread_id="t1/memories/m"))
        assert store.count(Scope(tenant_id="acme")) == 1

    def test_an_id_too_long_for_a_shelf_is_stored_all_the_same(self, store):
        scope = Scope(tenant_id="acme", thread_id="t1/memories/m", user_id="u" * MAX_ID_CHARS)
        store.upsert([point(1, scope, kind=EPISODE)])
        assert store.count(Scope(tenant_id="acme")) == 1

    def test_a_rare_term_weighs_more_than_a_common_one(self, store):
        store.upsert([point(1, terms=(1, 2)), *(point(seq, terms=(1,)) for seq in range(2, 30))])
        rare, common = store.query(ALICE, [by_term(2), by_term(1)])
        assert rare[0].score > 3 * common[0].score

    def test_query_weights_scale_the_score(self, store):
        store.upsert([point(1)])
        once, twice = store.query(
            ALICE, [by_term(), VectorQuery(BM25, SparseVector((1,), (2.0,)), 1)]
        )
        assert twice[0].score == pytest.approx(2 * once[0].score)

    def test_idf_is_the_scopes_own(self, store):
        store.upsert([point(seq) for seq in range(1, 5)])
        (before,) = store.query(ALICE, [by_term()])
        store.upsert([point(seq, OTHER, terms=(2,)) for seq in range(100, 180)])
        store.upsert([point(seq, BOB, terms=(2,)) for seq in range(200, 280)])
        (after,) = store.query(ALICE, [by_term()])
        assert after == before

    def test_a_query_among_some_points_finds_those_alone(self, store):
        store.upsert([point(seq, dense=[1.0, seq / 10, 0, 0]) for seq in range(1, 9)])
        store.upsert([point(20, BOB), point(21, terms=(2,))])
        some = (3, 5, 20, 21, 99)
        queries = [
            by_term(among=some),
            by_term(limit=1),
            VectorQuery(DENSE, [1.0, 0, 0, 0], 5, among=some),
            by_term(among=()),
        ]
        by_word, best, dense, none = store.query(ALICE, queries)
        assert (ids(by_word), ids(dense), none) == ([3, 5], [3, 5], [])
        assert by_word[0].score == pytest.approx(best[0].score)

    def test_codes_are_given_back_within_the_scope(self, store):
        store.upsert([point(1, codes="AAE="), point(2), point(3, BOB, codes="AAI=")])
        assert store.codes(ALICE, [1, 2, 3, 9]) == {1: "AAE="}
        assert store.codes(Scope(tenant_id="acme"), [1, 3, 3]) == {1: "AAE=", 3: "AAI="}
        assert store.codes(OTHER, [1, 3]) == {}
        assert store.codes(ALICE, []) == {}
        assert asyncio.run(store.acodes(ALICE, [1])) == {1: "AAE="}
        store.delete(ALICE)
        assert store.codes(ALICE, [1]) == {}

    def test_what_nothing_matches_answers_nothing(self, store):
        store.upsert([point(1)])
        queries = [by_term(99), VectorQuery(TERMS, SparseVector((), ()), 3)]
        assert store.query(ALICE, queries) == [[], []]
        assert store.query(ALICE, []) == []
        assert store.query(Scope(tenant_id="acme", thread_id="none"), queries) == [[], []]

    def test_a_point_without_vectors_is_kept(self, store):
        bare = Point(id=1, payload={"tenant_id": "acme", "kind": "episodic"})
        store.upsert([bare])
        assert store.count(Scope(tenant_id="acme")) == 1

    def test_a_role_of_any_text_is_kept(self, store):
        store.upsert([point(1, role="\ud800-bot")])
        assert store.scroll(ALICE)[0].payload["role"] == "?-bot"

    def test_a_point_again_replaces_the_one_before(self, store):
        store.upsert([point(1, terms=(1,))])
        store.upsert([point(1, terms=(2,)), point(1, terms=(3,))])
        assert [ids(a) for a in store.query(ALICE, [by_term(1), by_term(2), by_term(3)])] == [
            [],
            [],
            [1],
        ]
        assert store.count(ALICE) == 1

    # -- filters ------------------------------------------------------------------------

    def test_no_tenant_sees_anothers_points(self, store):
        store.upsert([point(1, ALICE), point(2, OTHER)])
        for scope, seen in (
            (ALICE, [1]),
            (OTHER, [2]),
            (Scope(tenant_id="acme"), [1]),
            (Scope(tenant_id="globex"), [2]),
            (Scope(tenant_id="acme/"), []),
            (Scope(tenant_id="acme/thread/t1"), []),
            (Scope(tenant_id="ACME", thread_id="t1"), []),
        ):
            assert ids(store.query(scope, [by_term()])[0]) == seen
            assert store.count(scope) == len(seen)
            assert [p.id for p in store.scroll(scope)] == seen

    @pytest.mark.parametrize("scope", [Scope(), Scope(thread_id="t1"), Scope(user_id="alice")])
    def test_without_a_tenant_nothing_is_answered_or_changed(self, store, scope):
        store.upsert([point(1)])
        for refused in (
            lambda: store.query(scope, [by_term()]),
            lambda: store.count(scope),
            lambda: store.scroll(scope),
            lambda: store.delete(scope),
        ):
            with pytest.raises(ValueError, match="tenant_id"):
                refused()
        assert store.count(ALICE) == 1

    def test_a_point_without_tenant_is_refused(self, store):
        with pytest.raises(ValueError, match="tenant_id"):
            store.upsert([Point(id=1, payload={"thread_id": "t1"})])

    def test_a_thread_is_seen_whole_and_a_user_over_all_threads(self, store):
        bob_in_t1 = Scope(tenant_id="acme", thread_id="t1", user_id="bob")
        store.upsert([point(1, ALICE), point(2, bob_in_t1), point(3, BOB)])
        assert ids(store.query(ALICE, [by_term()])[0]) == [1, 2]
        assert ids(store.query(Scope(tenant_id="acme", user_id="bob"), [by_term()])[0]) == [2, 3]
        assert ids(store.query(Scope(tenant_id="acme"), [by_term()])[0]) == [1, 2, 3]

    @pytest.mark.parametrize("using", [BM25, TERMS, DENSE])
    def test_slots_and_times_narrow_each_arm(self, store, using):
        store.upsert(
            [
                point(seq, slot=seq % 50, dense=[1.0, seq, 0, 0], at=float(seq))
                for seq in range(1, 400)
            ]
        )
        vector = [1.0, 0, 0, 0] if using == DENSE else SparseVector((1,), (1.0,))

        def found(before_slot=None, **times):
            query = VectorQuery(using, vector, 400, **times)
            (answer,) = store.query(ALICE, [query], before_slot=before_slot)
            return set(ids(answer))

        assert found() == set(range(1, 400))
        assert found(before_slot=3) == {seq for seq in range(1, 400) if seq % 50 < 3}
        assert found(at_from=10.0, at_until=20.0) == set(range(10, 20))
        assert found(at_from=datetime.fromtimestamp(390, UTC)) == set(range(390, 400))
        assert found(before_slot=1, at_until=100.0) == {50}
        assert found(before_slot=0) == set()

    def test_a_narrow_range_behind_many_better_points_is_still_found(self, store):
        store.upsert([point(seq, dense=[1.0, seq / 100, 0, 0]) for seq in range(1, 301)])
        query = VectorQuery(DENSE, [1.0, 3.0, 0, 0], 3)
        (answer,) = store.query(ALICE, [query], before_slot=6)
        assert ids(answer) == [5, 4, 3]

    def test_before_slot_needs_a_thread(self, store):
        with pytest.raises(ValueError, match="before_slot"):
            store.query(Scope(tenant_id="acme"), [by_term()], before_slot=3)

    # -- checking -----------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("wrong", "says"),
        [
            (point(0), "positive"),
            (point(-1), "positive"),
            (point(2**63), "positive"),
            (point(2, dense=[1, 2, 3]), "4 numbers, got 3"),
            (point(2, dense=[1, 2, 3, float("nan")]), "finite"),
            (point(2, dense=[1, 2, 3, float("inf")]), "finite"),
            (point(2, text="said in confidence"), "text"),
            (point(2, dense=[1, 2, 3, 1e30]), "finite"),
            (point(2, slot="2"), "slot"),
            (point(2, slot=True), "slot"),
            (point(2, slot=2**70), "64 bits"),
            (point(2, tenant_id="\ud800"), "tenant_id"),
            (point(2, at=datetime(2024, 1, 1)), "aware"),  # noqa: DTZ001 - the point
            (point(2, at=float("nan")), "finite"),
            (point(2, tenant_id=""), "tenant_id"),
            (point(2, terms=(1, 1)), "twice"),
            (point(2, terms=(-1,)), "sparse index"),
            (point(2, terms=(2**32,)), "sparse index"),
            (
                Point(
                    id=2, payload={"tenant_id": "acme"}, sparse={"bm52": SparseVector((1,), (1.0,))}
                ),
                "bm52",
            ),
            (Point(id=2, payload={"tenant_id": "acme"}, dense={"dens": [1.0] * 4}), "dens"),
            (
                Point(id=2, payload={"tenant_id": "acme"}, sparse={BM25: SparseVector((1,), ())}),
                "1 indices and 0",
            ),
            (
                Point(
                    id=2,
                    payload={"tenant_id": "acme"},
                    sparse={BM25: SparseVector((1,), (float("nan"),))},
                ),
                "finite",
            ),
        ],
    )
    def test_one_wrong_point_keeps_the_whole_batch_out(self, store, wrong, says):
        with pytest.raises(ValueError, match=says):
            store.upsert([*(point(seq) for seq in range(100, 200)), wrong])
        assert store.count(Scope(tenant_id="acme")) == 0

    @pytest.mark.parametrize(
        ("wrong", "says"),
        [
            (VectorQuery(DENSE, [1.0, 2.0], 3), "4 numbers, got 2"),
            (VectorQuery(DENSE, [1.0, 2.0, 3.0, float("nan")], 3), "finite"),
            (VectorQuery(DENSE, SparseVector((1,), (1.0,)), 3), "dense"),
            (VectorQuery(BM25, [1.0], 3), "SparseVector"),
            (VectorQuery("colbert", [1.0], 3), "colbert"),
            (by_term(limit=0), "limit"),
            (by_term(at_from=datetime(2024, 1, 1)), "aware"),  # noqa: DTZ001 - the point
        ],
    )
    def test_a_wrong_query_is_refused(self, store, wrong, says):
        with pytest.raises(ValueError, match=says):
            store.query(ALICE, [by_term(), wrong])

    def test_without_embeddings_keywords_work_and_dense_is_refused(self, keyword_store):
        keyword_store.upsert([point(1)])
        assert ids(keyword_store.query(ALICE, [by_term()])[0]) == [1]
        assert keyword_store.dense is None
        with pytest.raises(ValueError, match="without embeddings"):
            keyword_store.query(ALICE, [VectorQuery(DENSE, [1.0] * 4, 3)])
        with pytest.raises(ValueError, match="without embeddings"):
            keyword_store.upsert([point(2, dense=[1.0] * 4)])

    # -- reading back and erasing -------------------------------------------------------

    def test_scrolling_gives_every_point_once_in_id_order(self, store):
        at = datetime(2024, 5, 1, tzinfo=UTC)
        store.upsert([point(seq, terms=(seq,), at=at) for seq in range(25, 0, -1)])
        store.upsert([point(100, OTHER)])
        seen, after = [], 0
        while page := store.scroll(ALICE, after_id=after, limit=10):
            seen += page
            after = page[-1].id
        assert [each.id for each in seen] == list(range(1, 26))
        assert seen[6].payload == {**point(7).payload, "at": at.timestamp()}
        assert list(seen[6].sparse[BM25].indices) == [7]

    def test_deleting_a_thread_leaves_the_rest(self, store):
        store.upsert(
            [
                point(1),
                point(2, dense=[1, 0, 0, 0]),
                point(3, BOB, dense=[0, 1, 0, 0]),
                point(4, OTHER),
            ]
        )
        kept = store.scroll(BOB)
        index_id = store.index_id
        assert store.delete(ALICE) == 2
        assert store.delete(ALICE) == 0
        assert store.count(ALICE) == 0
        assert ids(store.query(Scope(tenant_id="acme"), [by_term()])[0]) == [3]
        assert ids(store.query(OTHER, [by_term()])[0]) == [4]
        assert store.scroll(BOB) == kept
        assert store.index_id == index_id

    def test_threads_that_go_together_are_deleted_at_once(self, store):
        store.upsert([point(1), point(2, BOB), point(3, OTHER)])
        assert store.delete(ALICE, also=[str(BOB.thread_id), "none"]) == 2
        assert store.count(Scope(tenant_id="acme")) == 0
        assert store.count(OTHER) == 1

    def test_deleting_a_tenant_leaves_the_others(self, store):
        store.upsert([point(1), point(2, BOB), point(3, OTHER)])
        assert store.delete(Scope(tenant_id="acme")) == 2
        assert store.count(Scope(tenant_id="acme")) == 0
        assert store.count(OTHER) == 1

    def test_a_dropped_store_starts_again_as_another_index(self, store):
        store.upsert([point(1)])
        before = store.index_id
        store.drop()
        assert store.count(ALICE) == 0
        assert store.index_id != before
        store.upsert([point(2)])
        assert ids(store.query(ALICE, [by_term()])[0]) == [2]

    # -- living -------------------------------------------------------------------------

    def test_setup_flush_and_close_can_be_repeated(self, store):
        store.setup()
        store.setup()
        store.upsert([point(1)])
        store.flush()
        store.flush()
        store.close()
        store.close()
        with pytest.raises(StorageError, match="closed"):
            store.count(ALICE)
        with pytest.raises(StorageError, match="closed"):
            store.upsert([point(2)])
        with pytest.raises(StorageError, match="closed"):
            store.drop()

    def test_eight_threads_write_and_ask_at_once(self, store):
        failures = []

        def work(number):
            try:
                scope = Scope(tenant_id="acme", thread_id=f"thread-{number}")
                for turn in range(60):
                    seq = number * 1_000 + turn + 1
                    store.upsert([point(seq, scope, terms=(number,))])
                    (answer,) = store.query(scope, [by_term(number, limit=100)])
                    assert seq in ids(answer)
                    assert len(answer) == turn + 1
            except Exception as error:  # noqa: BLE001 - reported below
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert store.count(Scope(tenant_id="acme")) == 480

    def test_deleting_beside_writers_loses_none_of_theirs(self, store):
        store.upsert([point(seq, OTHER) for seq in range(10_000, 10_400)])
        failures = []

        def write():
            try:
                for seq in range(1, 200):
                    store.upsert([point(seq)])
                    assert seq in ids(store.query(ALICE, [by_term(limit=300)])[0])
            except Exception as error:  # noqa: BLE001 - reported below
                failures.append(error)

        def erase(user):
            try:
                mine = Scope(tenant_id="globex", thread_id=user)
                for seq in range(20_000, 20_003):
                    store.upsert([point(seq + len(user) * 100, mine)])
                    assert store.delete(mine) == 1
            except Exception as error:  # noqa: BLE001 - reported below
                failures.append(error)

        threads = [threading.Thread(target=write)]
        threads += [threading.Thread(target=erase, args=(name,)) for name in ("x", "yy")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert store.count(ALICE) == 199
        assert store.count(OTHER) == 400

    # -- async --------------------------------------------------------------------------

    async def test_async_does_the_same(self, store):
        await store.asetup()
        await store.aupsert([point(seq) for seq in range(1, 101)])
        (answer,) = await store.aquery(ALICE, [by_term(limit=3)], before_slot=50)
        assert ids(answer) == [1, 2, 3]
        assert await store.acount(ALICE) == 100
        assert len(await store.ascroll(ALICE, after_id=90)) == 10
        assert await store.adelete(ALICE) == 100
        await store.aupsert([point(1)])
        await store.adrop()
        assert await store.acount(ALICE) == 0
        await store.aflush()
        await store.aclose()

    async def test_a_large_batch_lets_the_loop_turn(self, store):
        await store.asetup()
        turns = 0

        async def others():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(others())
        await store.aupsert([point(seq) for seq in range(1, 2_001)])
        while_writing = turns
        await store.adelete(ALICE)
        task.cancel()
        assert while_writing > 30

    async def test_tasks_write_ask_and_erase_together(self, store):
        async def write(number):
            scope = Scope(tenant_id="acme", thread_id=f"thread-{number}")
            batch = [point(number * 1_000 + turn, scope) for turn in range(1, 101)]
            await store.aupsert(batch)
            (answer,) = await store.aquery(scope, [by_term(limit=200)])
            assert len(answer) == 100

        async def erase(number):
            scope = Scope(tenant_id="acme", thread_id=f"gone-{number}")
            await store.aupsert(
                [point(50_000 + number * 100 + turn, scope) for turn in range(1, 41)]
            )
            assert await store.adelete(scope) == 40

        await asyncio.gather(*(write(n) for n in range(4)), *(erase(n) for n in range(4)))
        assert await store.acount(Scope(tenant_id="acme")) == 400

    async def test_a_cancelled_erasure_can_be_repeated(self, store):
        await store.aupsert([point(seq, OTHER) for seq in range(1, 1_001)])
        await store.aupsert([point(2_000)])
        task = asyncio.create_task(store.adelete(ALICE))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await store.adelete(ALICE)
        assert await store.acount(ALICE) == 0
        assert await store.acount(OTHER) == 1_000

    def test_each_async_method_takes_what_its_blocking_twin_takes(self, store):
        for name in dir(VectorStore):
            twin = getattr(type(store), f"a{name}", None)
            if not name.startswith("_") and twin is not None:
                blocking = inspect.signature(getattr(type(store), name))
                assert inspect.signature(twin) == blocking, name
