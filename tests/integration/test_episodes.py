"""Episodes: made beside the turns, found across threads, forgotten with their turns."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from langchain_ctxmgr import ContextManager, Scope
from langchain_ctxmgr.records import Memory
from tests.hashed_words import HashedWords
from tests.loopback_qdrant import LoopbackQdrant
from tests.postgres import OwnDatabase, own_database

START = datetime(2026, 3, 1, 9, tzinfo=UTC)
NOW = START + timedelta(days=20)
MIA = Scope(tenant_id="acme", user_id="mia")
BOAT = [
    "How do I mend the cracked mast of my boat? I bought it on 3 May in Bergen.",
    "Sand the crack and glue the mast with epoxy resin.",
    "The mast is sanded. I prefer spruce. Which epoxy should I take for the mast of the boat?",
    "A slow epoxy, 300 grams, keeps the mast of a boat dry for years.",
    "I decided to use 300 grams of the slow epoxy for the mast. I prefer to sail on Sundays.",
    "We agreed: the mast gets slow epoxy and two days of drying.",
]
BREAD = [
    "My rye bread never rises. I prefer a sour rye bread with 40 percent whole grain.",
    "Feed the sourdough twice and let the rye dough rest.",
    "I fed the sourdough on 7 May. How long should the rye dough rest?",
    "Let the rye dough rest for 3 hours before the bread is baked.",
    "I decided to let the rye dough rest overnight for the bread.",
    "Good: a night of rest makes the rye bread sour.",
]


def messages(texts: list[str], thread: str) -> list[BaseMessage]:
    kinds = (HumanMessage, AIMessage)
    return [kinds[i % 2](text, id=f"{thread}-{i}") for i, text in enumerate(texts)]


def thread(name: str, user: str | None = "mia", tenant: str = "acme") -> Scope:
    return Scope(tenant_id=tenant, thread_id=name, user_id=user)


def tell(manager: ContextManager, where: Scope, texts: list[str], start: datetime = START) -> None:
    said = messages(texts, str(where.thread_id))
    at = [start + timedelta(minutes=place) for place in range(len(said))]
    manager.record(said, scope=where, at=at)


def episodes(manager: ContextManager, query: str, scope: Scope = MIA) -> list[Memory]:
    return manager.recall(query, scope=scope, kinds=("episodic",), score_threshold=0)


@pytest.fixture(scope="module")
def database() -> Iterator[OwnDatabase]:
    with own_database() as made:
        yield made


@pytest.fixture
def over_servers(database: OwnDatabase) -> Iterator[ContextManager]:
    with (
        LoopbackQdrant() as qdrant,
        ContextManager(
            log=database.url(), vectors=qdrant.url, model="gpt-4o-mini", clock=lambda: NOW
        ) as opened,
    ):
        yield opened
    database.empty()


@pytest.fixture(params=[None, HashedWords()], ids=["keywords", "embeddings"])
def manager(request: pytest.FixtureRequest) -> Iterator[ContextManager]:
    with ContextManager.open(
        None, model="gpt-4o-mini", embeddings=request.param, clock=lambda: NOW
    ) as opened:
        yield opened


class TestMaking:
    def test_stretches_are_found_with_the_ids_of_their_turns(self, manager: ContextManager) -> None:
        tell(manager, thread("a"), BOAT + BREAD)
        assert manager.make_episodes(scope=thread("a", None)) == 2
        (found, *_) = episodes(manager, "the mast of the boat")
        assert found.kind == "episodic"
        assert found.source_ids == tuple(f"a-{place}" for place in range(6))
        assert "Asked: How do I mend the cracked mast" in found.text
        assert "Outcome: " in found.text
        (bread, *_) = episodes(manager, "rye bread")
        assert bread.source_ids == tuple(f"a-{place}" for place in range(6, 12))

    def test_again_adds_nothing(self, manager: ContextManager) -> None:
        tell(manager, thread("a"), BOAT)
        assert manager.make_episodes(scope=MIA) == 1
        before = manager.stats(scope=Scope(tenant_id="acme"))["log"]
        assert manager.make_episodes(scope=MIA) == 0
        assert manager.stats(scope=Scope(tenant_id="acme"))["log"] == before

    def test_on_an_event_loop_too(self, manager: ContextManager) -> None:
        tell(manager, thread("a"), BOAT)
        assert asyncio.run(manager.amake_episodes(scope=MIA)) == 1
        found = asyncio.run(
            manager.arecall("boat mast", scope=MIA, kinds=("episodic",), score_threshold=0)
        )
        assert [each.source_ids[0] for each in found] == ["a-0"]

    def test_what_goes_on_is_not_over(self, manager: ContextManager) -> None:
        tell(manager, thread("a"), BOAT, start=NOW - timedelta(minutes=30))
        assert manager.make_episodes(scope=MIA) == 0

    def test_small_talk_is_left_out(self, manager: ContextManager) -> None:
        tell(manager, thread("a"), ["Hello!", "Hi there!", "Thanks.", "You are welcome."])
        assert manager.make_episodes(scope=MIA) == 0

    def test_what_was_said_and_the_thread_stay_as_they_were(self, manager: ContextManager) -> None:
        tell(manager, thread("a"), BOAT)
        before = [each.id for each in manager.recall("boat mast", scope=MIA)]
        manager.make_episodes(scope=MIA)
        assert [each.id for each in manager.recall("boat mast", scope=MIA)] == before
        assert len(manager.history(scope=thread("a"))) == len(BOAT)

    def test_the_worker_makes_them_over_restarts_once(self, tmp_path: Path) -> None:
        for _ in range(2):
            with ContextManager.open(
                tmp_path, model="gpt-4o-mini", episodes=0.0, clock=lambda: NOW
            ) as manager:
                tell(manager, thread("a"), BOAT + BREAD)
                tell(manager, thread("b"), BOAT[:4])
                manager._episodes.join(30)  # pyright: ignore[reportPrivateUsage]
                found = episodes(manager, "mast boat rye bread")
                assert sorted(each.source_ids[0] for each in found) == ["a-0", "a-6", "b-0"]

    @pytest.mark.parametrize("value", [-0.1, 1.5, "0.6", True])
    def test_a_threshold_that_is_none_is_refused(self, value: object) -> None:
        with pytest.raises(ValueError, match="episodes must be a number"):
            ContextManager.open(None, episodes=value)  # pyright: ignore[reportArgumentType]


class TestIsolation:
    def test_another_user_and_another_tenant_find_nothing(self, manager: ContextManager) -> None:
        tell(manager, thread("a"), BOAT)
        manager.make_episodes(scope=MIA)
        assert episodes(manager, "boat mast")
        for scope in (
            Scope(tenant_id="acme", user_id="ola"),
            Scope(tenant_id="other", user_id="mia"),
            Scope(tenant_id="other", thread_id="a"),
            Scope(tenant_id="acme", thread_id="b"),
        ):
            assert episodes(manager, "boat mast", scope) == []

    def test_a_shared_threads_episode_is_of_one_user(self, manager: ContextManager) -> None:
        tell(manager, thread("a"), BOAT)
        said = messages(BREAD, "ola")
        later = [START + timedelta(minutes=10 + place) for place in range(len(said))]
        manager.record(said, scope=thread("a", "ola"), at=later)
        manager.make_episodes(scope=thread("a", None))
        ola = Scope(tenant_id="acme", user_id="ola")
        assert {each.source_ids[0] for each in episodes(manager, "boat rye bread", ola)} == {
            "ola-0"
        }
        assert {each.source_ids[0] for each in episodes(manager, "boat rye bread")} == {"a-0"}


class TestForgetting:
    def test_a_message_takes_its_episode_along(self, manager: ContextManager) -> None:
        tell(manager, thread("a"), BOAT + BREAD)
        manager.make_episodes(scope=MIA)
        manager.forget(scope=thread("a", None), message_ids=["a-1"])
        assert {each.source_ids[0] for each in episodes(manager, "boat mast rye")} == {"a-6"}
        manager.make_episodes(scope=MIA)
        remade = {each.source_ids for each in episodes(manager, "boat mast rye")}
        assert ("a-0", "a-2", "a-3", "a-4", "a-5") in remade
        assert not any("a-1" in each for each in remade)

    @pytest.mark.parametrize("scope", [thread("a", None), MIA, Scope(tenant_id="acme")])
    def test_a_thread_a_user_and_a_tenant_too(self, manager: ContextManager, scope: Scope) -> None:
        tell(manager, thread("a"), BOAT)
        manager.make_episodes(scope=MIA)
        manager.forget(scope=scope)
        assert episodes(manager, "boat mast") == []
        assert manager.export(scope=Scope(tenant_id="acme")) == []

    def test_a_time_takes_what_it_cuts_into(self, manager: ContextManager) -> None:
        tell(manager, thread("a"), BOAT + BREAD)
        manager.make_episodes(scope=MIA)
        manager.forget(scope=thread("a", None), since=START + timedelta(minutes=9))
        assert {each.source_ids[0] for each in episodes(manager, "boat mast rye")} == {"a-0"}

    def test_what_was_forgotten_while_it_was_made_does_not_come_back(
        self, manager: ContextManager, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tell(manager, thread("a"), BOAT)
        append = manager._log.append

        def forgets_meanwhile(*args: Any, **given: Any) -> Any:
            monkeypatch.undo()
            manager.forget(scope=thread("a", None))
            tell(manager, thread("a"), BREAD, START + timedelta(days=1))
            return append(*args, **given)

        monkeypatch.setattr(manager._log, "append", forgets_meanwhile)
        manager.make_episodes(scope=thread("a", None))
        assert "mast" not in str(episodes(manager, "boat mast"))
        assert "mast" not in str(manager.export(scope=Scope(tenant_id="acme")))


class TestMuting:
    def test_a_muted_episode_is_not_recalled(self, manager: ContextManager) -> None:
        tell(manager, thread("a"), BOAT + BREAD)
        manager.make_episodes(scope=MIA)
        (found, *_) = episodes(manager, "the mast of the boat")
        manager.weigh(found.id, 0, scope=thread("a"))
        assert found.id not in {each.id for each in episodes(manager, "the mast of the boat")}

    def test_muted_turns_are_in_no_episode(self, manager: ContextManager) -> None:
        tell(manager, thread("a"), BOAT + BREAD)
        for place in range(6):
            manager.weigh(f"a-{place}", 0, scope=thread("a"))
        assert manager.make_episodes(scope=MIA) == 1
        assert "mast" not in str(episodes(manager, "the mast of the boat"))


class TestOverServers:
    def test_they_are_made_found_and_forgotten(self, over_servers: ContextManager) -> None:
        tell(over_servers, thread("a"), BOAT + BREAD)
        assert over_servers.make_episodes(scope=MIA) == 2
        assert over_servers.make_episodes(scope=MIA) == 0
        assert {each.source_ids[0] for each in episodes(over_servers, "boat rye")} == {"a-0", "a-6"}
        assert episodes(over_servers, "boat rye", Scope(tenant_id="other", user_id="mia")) == []
        over_servers.forget(scope=thread("a", None), message_ids=["a-8"])
        assert {each.source_ids[0] for each in episodes(over_servers, "boat rye")} == {"a-0"}


class TestKinds:
    def test_facts_and_episodes_come_together(self, manager: ContextManager) -> None:
        tell(manager, thread("a"), BOAT)
        manager.make_episodes(scope=MIA)
        manager.learn("The boat is called Heron.", scope=MIA)
        manager.remember("We launched the boat in Bergen.", scope=MIA, kind="episodic")
        kinds = ("episodic", "semantic")
        found = manager.recall("boat", scope=MIA, kinds=kinds, score_threshold=0)
        assert {each.kind for each in found} == set(kinds)
        texts = [each.text for each in found]
        assert "The boat is called Heron." in texts
        assert "We launched the boat in Bergen." in texts

    def test_they_are_exported(self, manager: ContextManager) -> None:
        tell(manager, thread("a"), BOAT)
        manager.make_episodes(scope=MIA)
        kept = [each for each in manager.export(scope=MIA) if "/memories/" in str(each)]
        assert len(kept) == 1

    @pytest.mark.parametrize("kinds", [(), "episodic", ("stuff",), 3, [["episodic"]]])
    def test_kinds_that_are_none_are_refused(self, manager: ContextManager, kinds: object) -> None:
        with pytest.raises(ValueError, match="kinds must name"):
            manager.recall("boat", scope=MIA, kinds=kinds)  # pyright: ignore[reportArgumentType]
