-- What a user pins, boosts or mutes: rows are only ever added, the newest of a message counts,
-- and all of it goes with the message.

CREATE TABLE weights (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant INTEGER NOT NULL,
    thread INTEGER NOT NULL,
    user_id TEXT,
    message_id BLOB NOT NULL,
    is_pinned INTEGER NOT NULL,
    weight REAL NOT NULL,
    at INTEGER NOT NULL
);
CREATE INDEX weights_by_message ON weights (thread, message_id, id);
CREATE INDEX weights_by_user ON weights (tenant, user_id);
