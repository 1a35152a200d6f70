-- What records state, read from them: removed with them.

CREATE TABLE stated (
    seq bigint PRIMARY KEY,
    tenant_id text COLLATE "C" NOT NULL,
    thread bigint NOT NULL,
    user_id text COLLATE "C",
    value bytea NOT NULL
);
CREATE INDEX stated_by_user ON stated (tenant_id, user_id, seq);
CREATE INDEX stated_by_thread ON stated (thread);

ALTER TABLE stated ENABLE ROW LEVEL SECURITY;
ALTER TABLE stated FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON stated
    USING (tenant_id = current_setting('ctxmgr.tenant_id', true))
    WITH CHECK (tenant_id = current_setting('ctxmgr.tenant_id', true));
