-- Records that were erased one by one: their places in the chain, without text, names or users.

CREATE TABLE withdrawn (
    seq bigint PRIMARY KEY,
    tenant_id text COLLATE "C" NOT NULL,
    thread bigint NOT NULL,
    branch bigint NOT NULL,
    position bigint NOT NULL,
    slot bigint NOT NULL,
    revision bigint NOT NULL,
    session bigint NOT NULL,
    message_id bytea NOT NULL,
    message_key bytea NOT NULL,
    at bigint NOT NULL,
    total_tokens bigint NOT NULL,
    total_importance double precision NOT NULL,
    bytes bigint NOT NULL,
    digest bytea NOT NULL,
    row_digest bytea NOT NULL,
    chain bytea NOT NULL
);
CREATE UNIQUE INDEX withdrawn_by_position ON withdrawn (thread, position);
CREATE UNIQUE INDEX withdrawn_by_message ON withdrawn (thread, message_key, revision);

ALTER TABLE withdrawn ENABLE ROW LEVEL SECURITY;
ALTER TABLE withdrawn FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON withdrawn
    USING (tenant_id = current_setting('ctxmgr.tenant_id', true))
    WITH CHECK (tenant_id = current_setting('ctxmgr.tenant_id', true));

ALTER TABLE threads ADD COLUMN withdrawn bigint NOT NULL DEFAULT 0;

-- Which records of the thread; null for all there were.
ALTER TABLE erasures ADD COLUMN seqs bigint[];
