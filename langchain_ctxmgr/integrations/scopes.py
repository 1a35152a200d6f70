"""Whose conversation a run of a graph is: tenant, user and thread.

Asked in this order: the run's context, the user that LangGraph's server has authenticated,
the run's `configurable`, what the host was made with. A run inside another one (a subagent, a
subgraph) has a conversation of its own, so its thread is its caller's with the id of its first
message: the same one however often it is entered with the same conversation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig

from langchain_ctxmgr.records import MAX_ID_CHARS, Scope

_NESTED_IN = "|"
"""Between the parts of a `checkpoint_ns`: the node, and the nodes it runs inside of."""


def scope_of_run(
    runtime: object,
    config: RunnableConfig,
    messages: Sequence[BaseMessage],
    *,
    default: Scope,
) -> Scope:
    """The scope of the run that `runtime` and `config` belong to.

    Raises:
        ValueError: If the authenticated user is another than the one the run names, or an id
            is none. A missing tenant is left to the manager, which refuses it or has its own.
    """
    given = dict(cast("Mapping[str, Any]", config.get("configurable") or {}))
    context = getattr(runtime, "context", None)
    user = getattr(getattr(runtime, "server_info", None), "user", None)
    found: dict[str, str | None] = {}
    for name, of_user in (("tenant_id", "tenant_id"), ("user_id", "identity"), ("thread_id", "")):
        asked, proven = _part(context, name), _part(user, of_user)
        if proven is not None and asked not in {None, proven}:
            raise ValueError(f"{name} must be the authenticated user's, got {asked!r}")
        said = (asked, proven, given.get(name), getattr(default, name))
        found[name] = next((str(part) for part in said if part is not None), None)
    thread_id = found["thread_id"]
    if thread_id is not None and is_nested(config) and messages:
        found["thread_id"] = f"{thread_id}/{messages[0].id}"[-MAX_ID_CHARS:]
    return Scope(**found)


def runtime_here() -> object:
    """The runtime of the graph that this is called in; None outside of one."""
    try:
        from langgraph.runtime import get_runtime

        return get_runtime()
    except (ImportError, RuntimeError, KeyError):
        return None


def is_nested(config: RunnableConfig) -> bool:
    """Whether a run happens inside a node of another one."""
    given = cast("Mapping[str, Any]", config.get("configurable") or {})
    return _NESTED_IN in str(given.get("checkpoint_ns") or "")


def _part(holder: object, name: str) -> str | None:
    """What a context or a user says, be it a mapping or an object."""
    if holder is None or not name:
        return None
    if isinstance(holder, Mapping):
        return cast("Mapping[str, str | None]", holder).get(name)
    return getattr(holder, name, None)
