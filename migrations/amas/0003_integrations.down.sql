-- 0003 down: just what 0003 added; table and rows stay. The status rate_limited does not exist before 0003: such rows become
-- 'error', with a remark where last_error is empty.

ALTER TABLE integrations DROP CONSTRAINT integrations_user_id_fkey;

UPDATE integrations
SET status = 'error',
    last_error = COALESCE(last_error, 'was rate_limited when the schema went back before version 3')
WHERE status = 'rate_limited';
ALTER TABLE integrations DROP CONSTRAINT integrations_status_check;
ALTER TABLE integrations ADD CONSTRAINT integrations_status_check
    CHECK (status IN ('active', 'inactive', 'error', 'pending'));

DROP INDEX ix_integrations_user_platform;
