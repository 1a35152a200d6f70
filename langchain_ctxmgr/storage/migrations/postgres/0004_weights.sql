-- What a user pins, boosts or mutes: rows are only ever added, the newest of a message counts,
-- and all of it goes with the message.

CREATE TABLE weights (
    id bigserial PRIMARY KEY,
    tenant_id text COLLATE "C" NOT NULL,
    thread bigint NOT NULL,
    user_id text COLLATE "C",
    message_key bytea NOT NULL,
    is_pinned boolean NOT NULL,
    weight double precision NOT NULL,
    at bigint NOT NULL
);
CREATE INDEX weights_by_message ON weights (thread, message_key, id);
CREATE INDEX weights_by_user ON weights (tenant_id, user_id);

ALTER TABLE weights ENABLE ROW LEVEL SECURITY;
ALTER TABLE weights FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON weights
    USING (tenant_id = current_setting('ctxmgr.tenant_id', true))
    WITH CHECK (tenant_id = current_setting('ctxmgr.tenant_id', true));
