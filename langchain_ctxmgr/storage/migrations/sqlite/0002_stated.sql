-- What records state, read from them: removed with them.

CREATE TABLE stated (
    seq INTEGER PRIMARY KEY,
    tenant INTEGER NOT NULL,
    thread INTEGER NOT NULL,
    user_id TEXT,
    value BLOB NOT NULL
);
CREATE INDEX stated_by_user ON stated (tenant, user_id);
CREATE INDEX stated_by_thread ON stated (thread);
