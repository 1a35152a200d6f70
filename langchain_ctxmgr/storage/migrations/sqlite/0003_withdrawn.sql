-- Records that were erased one by one: their places in the chain, without text, names or users.

CREATE TABLE withdrawn (
    seq INTEGER PRIMARY KEY,
    thread INTEGER NOT NULL,
    branch INTEGER NOT NULL,
    position INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    session INTEGER NOT NULL,
    message_id BLOB NOT NULL,
    at INTEGER NOT NULL,
    total_tokens INTEGER NOT NULL,
    total_importance REAL NOT NULL,
    bytes INTEGER NOT NULL,
    digest BLOB NOT NULL,
    row_digest BLOB NOT NULL,
    chain BLOB NOT NULL
);
CREATE UNIQUE INDEX withdrawn_by_position ON withdrawn (thread, position);
CREATE UNIQUE INDEX withdrawn_by_message ON withdrawn (thread, message_id, revision);

ALTER TABLE threads ADD COLUMN withdrawn INTEGER NOT NULL DEFAULT 0;

-- Which records of the thread, as a JSON array; null for all there were.
ALTER TABLE erasures ADD COLUMN seqs TEXT;
