-- Seed, every profile: the first administrator, user_admin. No password is in this file: the operator makes one, keeps it in the
-- Secret <name>-seed, and its runner sets amas.seed.admin_password_hash (bcrypt, cost 12) for this transaction.
-- Can be run again at any time. An existing row with the same user_id, username or e-mail address is left as it is (no password is
-- ever reset by a seed). The application must demand a new password at the first login: metadata.must_change_password.

DO $seed$
DECLARE
    hash text := current_setting('amas.seed.admin_password_hash', true);
BEGIN
    IF COALESCE(hash, '') = '' THEN
        RAISE EXCEPTION 'the setting amas.seed.admin_password_hash is missing'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'The seed runner sets it for the transaction: the bcrypt hash (cost 12) of the generated admin password.';
    END IF;
    IF hash !~ '^\$2[aby]\$12\$[./A-Za-z0-9]{53}$' THEN
        -- the value is left out on purpose
        RAISE EXCEPTION 'the setting amas.seed.admin_password_hash is not a bcrypt hash of cost 12'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;

    INSERT INTO users (user_id, username, email, password_hash, roles, permissions, is_active, is_verified, metadata)
    VALUES ('user_admin', 'admin', 'admin@amas.local', hash, '["admin"]', '["*"]', true, true,
            '{"must_change_password": true, "created_by": "seed"}')
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RAISE NOTICE 'an account with this user_id, username or e-mail address exists: administrator left as it is';
    END IF;
END;
$seed$;
