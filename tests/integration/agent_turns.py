"""A long conversation with an agent, every turn held against what the provider accepts.

Run `python -m tests.integration.agent_turns --turns 300`: the agent calls tools in parallel,
blocking and async in turn, over a loopback server that refuses what OpenAI refuses. The same
conversation without the middleware has to end in the same messages.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from dataclasses import asdict, dataclass

from langgraph.checkpoint.memory import InMemorySaver

from langchain_ctxmgr import Scope
from tests.integration.agents import agent_of, asked, context, on, said
from tests.loopback_openai import LoopbackOpenAI

BUDGET_TOKENS = 6_000
WINDOW_TOKENS = 8_192
MODES = ("values", "updates", "messages", "custom", "checkpoints", "tasks", "debug")


@dataclass
class Report:
    """What a run came to."""

    turns: int
    requests: int
    refused: int
    largest_prompt_tokens: int
    prompt_tokens: int
    cached_share: float
    messages: int
    is_same_state: bool
    is_history_whole: bool
    seconds: float


def question(number):
    """What is asked in a turn: two of three turns call tools, some of them four at once."""
    text = f"Turn {number}: tell me about item {number} of box {number % 7}."
    calls = (f"look_up(item {number})", f"weather(town {number})")
    if number % 3 == 0:
        return f"{text} {'Please be thorough. ' * 20}"
    repeats = 2 if number % 5 == 0 else 1
    return text + "".join(f" [use {call}]" for call in calls * repeats)


async def turn(agent, number, thread_id):
    """One turn, in one of the ways an agent is run; the last one's mode goes round."""
    given, config = asked(question(number), f"q{number}"), on(thread_id)
    way = number % 5
    if way == 0:
        await asyncio.to_thread(agent.invoke, given, config)
    elif way == 1:
        await agent.ainvoke(given, config)
    elif way == 2:
        mode = MODES[number // 5 % len(MODES)]
        await asyncio.to_thread(lambda: list(agent.stream(given, config, stream_mode=mode)))
    elif way == 3:
        mode = MODES[number // 5 % len(MODES)]
        async for _ in agent.astream(given, config, stream_mode=mode):
            pass
    else:
        async for _ in agent.astream_events(given, config, version="v2"):
            pass


async def converse(turns, budget_tokens=BUDGET_TOKENS):
    """The conversation with the middleware and without, and how they compare."""
    started = time.perf_counter()
    with (
        LoopbackOpenAI(window_tokens=WINDOW_TOKENS) as server,
        LoopbackOpenAI() as plain,
        context(max_tokens=budget_tokens) as (manager, middleware),
    ):
        agent = agent_of(server, middleware, checkpointer=InMemorySaver())
        bare = agent_of(plain, checkpointer=InMemorySaver())
        for number in range(turns):
            await turn(agent, number, "long")
            await bare.ainvoke(asked(question(number), f"q{number}"), on("long"))
        kept = agent.get_state(on("long")).values["messages"]
        expected = bare.get_state(on("long")).values["messages"]
        recorded = manager.history(scope=Scope(tenant_id="acme", thread_id="long"))
        account = server.account
        prompts = [exchange.prompt_tokens for exchange in account.exchanges]
        return Report(
            turns=turns,
            requests=len(prompts),
            refused=len(account.refused),
            largest_prompt_tokens=max(prompts),
            prompt_tokens=sum(prompts),
            cached_share=round(account.cached_share, 3),
            messages=len(kept),
            is_same_state=said(kept) == said(expected),
            is_history_whole=[message.id for message in recorded] == [m.id for m in kept],
            seconds=round(time.perf_counter() - started, 1),
        )


def main():
    """Print the report; the exit status says whether it is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=300)
    parser.add_argument("--budget", type=int, default=BUDGET_TOKENS, help="tokens of a prompt")
    given = parser.parse_args()
    report = asyncio.run(converse(given.turns, given.budget))
    print(json.dumps(asdict(report), indent=2))
    return 0 if report.refused == 0 and report.is_same_state and report.is_history_whole else 1


if __name__ == "__main__":
    raise SystemExit(main())
