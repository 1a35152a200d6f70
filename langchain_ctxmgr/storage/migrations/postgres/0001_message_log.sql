-- What was said, by thread: rows of `records` are only ever added.
--
-- Every table with rows of a tenant names it, and row-level security shows a session only
-- those of the tenant it is bound to, its owner's sessions included. The operators that
-- find rows by index are leakproof ones (=, <, > on plain columns): others may run only
-- after the policy, so an index over an expression or an array would not be used.

CREATE TABLE tenants (
    tenant bigint GENERATED ALWAYS AS IDENTITY,
    tenant_id text COLLATE "C" PRIMARY KEY
);

CREATE TABLE threads (
    thread bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id text COLLATE "C" NOT NULL,
    thread_id text COLLATE "C" NOT NULL,
    records bigint NOT NULL DEFAULT 0,
    revisions bigint NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0,
    branches bigint NOT NULL DEFAULT 0,
    branch bigint NOT NULL DEFAULT 0,
    chain bytea NOT NULL,
    UNIQUE (tenant_id, thread_id)
) WITH (fillfactor = 50);

-- Where each line of messages forked off, and what its next message needs to know.
CREATE TABLE branches (
    tenant_id text COLLATE "C" NOT NULL,
    thread bigint NOT NULL,
    branch bigint NOT NULL,
    fork_branch bigint,
    fork_slot bigint,
    tip_slot bigint NOT NULL,
    tip_position bigint NOT NULL,
    session bigint NOT NULL,
    at bigint NOT NULL,
    total_tokens bigint NOT NULL,
    total_importance double precision NOT NULL,
    PRIMARY KEY (thread, branch)
) WITH (fillfactor = 50);

CREATE SEQUENCE seqs;

-- Ids and names are bytes: text may hold lone surrogates and NUL. `at` is in microseconds of
-- UTC. `message_key` stands for an id of any length in the index.
CREATE TABLE records (
    seq bigint PRIMARY KEY,
    tenant_id text COLLATE "C" NOT NULL,
    thread bigint NOT NULL,
    user_id text COLLATE "C",
    branch bigint NOT NULL,
    position bigint NOT NULL,
    slot bigint NOT NULL,
    revision bigint NOT NULL,
    parent bigint,
    session bigint NOT NULL,
    message_id bytea NOT NULL,
    role text COLLATE "C" NOT NULL,
    speaker bytea,
    at bigint NOT NULL,
    tokens bigint NOT NULL,
    encoding text COLLATE "C" NOT NULL,
    importance double precision NOT NULL,
    cues bigint NOT NULL,
    total_tokens bigint NOT NULL,
    total_importance double precision NOT NULL,
    message_key bytea NOT NULL,
    tokens_before bigint NOT NULL,
    has_terms boolean NOT NULL,
    digest bytea NOT NULL,
    chain bytea NOT NULL,
    terms bytea NOT NULL,
    payload bytea NOT NULL
);
CREATE UNIQUE INDEX records_by_tenant ON records (tenant_id, seq);
CREATE UNIQUE INDEX records_by_position ON records (thread, position);
CREATE UNIQUE INDEX records_by_slot ON records (thread, branch, slot, revision);
CREATE INDEX records_by_role ON records (thread, branch, role, slot);
CREATE UNIQUE INDEX records_by_message ON records (thread, message_key, revision);
CREATE INDEX records_revised ON records (thread, slot, revision) WHERE revision > 0;
CREATE INDEX records_by_revision ON records (thread, branch, position) WHERE revision > 0;
CREATE INDEX records_by_tokens ON records (thread, branch, tokens_before, slot)
    WHERE revision = 0;
CREATE INDEX records_by_importance ON records (thread, branch, importance DESC, slot)
    WHERE has_terms AND role IN ('human', 'ai', 'tool');

-- Which records have which terms: hashes, no words.
CREATE TABLE postings (
    tenant_id text COLLATE "C" NOT NULL,
    term bigint NOT NULL,
    seq bigint NOT NULL,
    thread bigint NOT NULL,
    often integer NOT NULL
);
CREATE INDEX postings_by_term ON postings (tenant_id, term, seq) INCLUDE (thread, often);

CREATE TABLE derived (
    id bigserial PRIMARY KEY,
    tenant_id text COLLATE "C" NOT NULL,
    thread bigint NOT NULL,
    kind text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    value bytea NOT NULL,
    UNIQUE (thread, kind, key)
);
CREATE INDEX derived_by_age ON derived (thread, kind, id);

-- How far each index follows a tenant's log, and which erasures it has carried out.
CREATE TABLE marks (
    tenant_id text COLLATE "C" NOT NULL,
    index_id text COLLATE "C" NOT NULL,
    words_seq bigint NOT NULL DEFAULT 0,
    dense_seq bigint NOT NULL DEFAULT 0,
    erasure_id bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, index_id)
);

-- What was erased, for every index to follow: kept, since an index may be restored from a copy.
CREATE TABLE erasures (
    id bigserial PRIMARY KEY,
    tenant_id text COLLATE "C" NOT NULL,
    thread_id text COLLATE "C",
    attempt text COLLATE "C" NOT NULL UNIQUE
);
CREATE INDEX erasures_by_tenant ON erasures (tenant_id, id);

-- Work that one process at a time does for a tenant.
CREATE TABLE claims (
    tenant_id text COLLATE "C" NOT NULL,
    task text COLLATE "C" NOT NULL,
    holder text COLLATE "C" NOT NULL,
    until timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, task)
);

DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY[
        'tenants', 'threads', 'branches', 'records', 'postings', 'derived', 'marks', 'erasures',
        'claims'
    ] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format(
            'CREATE POLICY own ON %I '
            'USING (tenant_id = current_setting(''ctxmgr.tenant_id'', true)) '
            'WITH CHECK (tenant_id = current_setting(''ctxmgr.tenant_id'', true))',
            name
        );
    END LOOP;
END $$;

-- Tenants' ids, erasures and marks, and nothing else, for what goes through every tenant in turn.
CREATE POLICY listed ON tenants FOR SELECT
    USING (current_setting('ctxmgr.list_tenants', true) = 'on');
CREATE POLICY listed ON erasures FOR SELECT
    USING (current_setting('ctxmgr.list_tenants', true) = 'on');
CREATE POLICY listed ON marks FOR SELECT
    USING (current_setting('ctxmgr.list_tenants', true) = 'on');
