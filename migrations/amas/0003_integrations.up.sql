-- 0003 integrations: ties an integration to its user, adds the status rate_limited, and a path by user and platform.
--
-- Why it alters: the source creates the table a second time with other columns. The table of 0001 is kept, with its names.
--
-- Locks: the index build comes first (writers of integrations wait, readers do not); the foreign key, which also locks users against
-- writes, comes last, so users is held only for the check of the rows. NOT VALID then VALIDATE: with both in one transaction the
-- lock is the same, but the steps are separate statements, so a runner may report or split them, and a row without a user fails
-- at VALIDATE with its key named. Such a row is not deleted here: find it with
--   SELECT integration_id, user_id FROM integrations i WHERE NOT EXISTS (SELECT FROM users u WHERE u.user_id = i.user_id);

CREATE INDEX ix_integrations_user_platform ON integrations (user_id, platform);

ALTER TABLE integrations DROP CONSTRAINT integrations_status_check;
ALTER TABLE integrations ADD CONSTRAINT integrations_status_check
    CHECK (status IN ('active', 'inactive', 'error', 'pending', 'rate_limited'));

ALTER TABLE integrations ADD CONSTRAINT integrations_user_id_fkey
    FOREIGN KEY (user_id) REFERENCES users (user_id) ON DELETE CASCADE NOT VALID;
ALTER TABLE integrations VALIDATE CONSTRAINT integrations_user_id_fkey;
