"""Which columns of the SQLite log are read, in which order, and how rows are told apart."""

from __future__ import annotations

from typing import Final

TURN_FIELDS: Final = (
    "r.slot, r.branch, r.session, r.role, r.speaker, r.at, r.tokens, r.importance, r.cues"
)
"""A turn's columns after its `seq` and its thread."""
TURN_COLUMNS: Final = f"r.seq, t.thread_id, {TURN_FIELDS}"
RECORD_COLUMNS: Final = (
    f"{TURN_COLUMNS}, t.tenant_id, r.user_id, r.position, r.revision, r.parent, r.message_id, "
    "r.encoding, r.total_tokens, r.total_importance, c.digest, c.chain, c.payload"
)
RECORD_TABLES: Final = (
    "records r CROSS JOIN contents c ON c.seq = r.seq CROSS JOIN threads t ON t.thread = r.thread"
)
TENANT: Final = "SELECT tenant FROM tenants WHERE tenant_id = ?"
"""The integer that stands for a tenant."""
NEWEST: Final = (
    "NOT EXISTS (SELECT 1 FROM records n WHERE n.thread = r.thread AND n.slot = r.slot "
    "AND n.revision > r.revision AND n.revision > 0)"
)
"""Holds for a record that no later revision supersedes."""
