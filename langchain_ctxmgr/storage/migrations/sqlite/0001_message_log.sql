-- What was said, by thread: rows of `records` and `contents` are only ever added.

CREATE TABLE tenants (tenant INTEGER PRIMARY KEY AUTOINCREMENT, tenant_id TEXT NOT NULL UNIQUE);

CREATE TABLE threads (
    thread INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant INTEGER NOT NULL,
    tenant_id TEXT NOT NULL,
    thread_id TEXT NOT NULL,
    records INTEGER NOT NULL,
    revisions INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    branches INTEGER NOT NULL,
    branch INTEGER NOT NULL,
    chain BLOB NOT NULL,
    UNIQUE (tenant_id, thread_id)
);

-- Where each line of messages forked off, and what its next message needs to know.
CREATE TABLE branches (
    thread INTEGER NOT NULL,
    branch INTEGER NOT NULL,
    fork_branch INTEGER,
    fork_slot INTEGER,
    tip_slot INTEGER NOT NULL,
    tip_position INTEGER NOT NULL,
    session INTEGER NOT NULL,
    at INTEGER NOT NULL,
    total_tokens INTEGER NOT NULL,
    total_importance REAL NOT NULL,
    PRIMARY KEY (thread, branch)
) WITHOUT ROWID;

-- Ids and names are bytes: text may hold lone surrogates. `at` is in microseconds of UTC.
CREATE TABLE records (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant INTEGER NOT NULL,
    thread INTEGER NOT NULL,
    user_id TEXT,
    branch INTEGER NOT NULL,
    position INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    parent INTEGER,
    session INTEGER NOT NULL,
    message_id BLOB NOT NULL,
    role TEXT NOT NULL,
    speaker BLOB,
    at INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    encoding TEXT NOT NULL,
    importance REAL NOT NULL,
    cues INTEGER NOT NULL,
    total_tokens INTEGER NOT NULL,
    total_importance REAL NOT NULL,
    has_terms INTEGER NOT NULL
);
CREATE INDEX records_by_tenant ON records (tenant);
CREATE UNIQUE INDEX records_by_position ON records (thread, position);
CREATE UNIQUE INDEX records_by_slot ON records (thread, branch, slot, revision);
CREATE INDEX records_by_role ON records (thread, branch, role, slot);
CREATE UNIQUE INDEX records_by_message ON records (thread, message_id, revision);
CREATE INDEX records_revised ON records (thread, slot, revision) WHERE revision > 0;
CREATE INDEX records_by_revision ON records (thread, branch, position) WHERE revision > 0;
CREATE INDEX records_by_tokens ON records (thread, branch, total_tokens - tokens, slot)
    WHERE revision = 0;
CREATE INDEX records_by_importance ON records (thread, branch, importance DESC, slot)
    WHERE has_terms = 1 AND role IN ('human', 'ai', 'tool');

-- Apart from `records`, so that weighing many turns reads few pages.
CREATE TABLE contents (
    seq INTEGER PRIMARY KEY,
    digest BLOB NOT NULL,
    chain BLOB NOT NULL,
    terms BLOB NOT NULL,
    payload BLOB NOT NULL
);

-- Hashed terms only: the index holds no words.
CREATE VIRTUAL TABLE keywords USING fts5 (scope, body, content = '', tokenize = 'ascii');

CREATE TABLE derived (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    thread INTEGER NOT NULL,
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    UNIQUE (thread, kind, key)
);
CREATE INDEX derived_by_age ON derived (thread, kind);

-- How far each index follows a tenant's log.
CREATE TABLE marks (
    tenant INTEGER NOT NULL,
    index_id TEXT NOT NULL,
    words_seq INTEGER NOT NULL DEFAULT 0,
    dense_seq INTEGER NOT NULL DEFAULT 0,
    erasure_id INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, index_id)
) WITHOUT ROWID;

-- What was erased, for every index to follow: kept, since an index may be restored from a copy.
CREATE TABLE erasures (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant INTEGER NOT NULL,
    thread_id TEXT
);
CREATE INDEX erasures_by_tenant ON erasures (tenant);

-- Work that one process at a time does for a tenant, until `until` in seconds of UTC.
CREATE TABLE claims (
    tenant INTEGER NOT NULL,
    task TEXT NOT NULL,
    holder TEXT NOT NULL,
    until REAL NOT NULL,
    PRIMARY KEY (tenant, task)
) WITHOUT ROWID;

-- One row while an erasure has deleted rows and their bytes may still be in the file.
CREATE TABLE uncleaned (id INTEGER PRIMARY KEY);
