-- Seed, last file of every profile: fresh statistics for every table of the schema, so the first queries are planned on what is there.
-- ANALYZE is allowed in a transaction (VACUUM is not, and a fresh database needs none). By catalog and not by a list, so it also
-- works on a database held at an earlier version.

DO $analyze$
DECLARE
    t regclass;
BEGIN
    FOR t IN
        SELECT c.oid
        FROM pg_catalog.pg_class c
        WHERE c.relnamespace = 'public'::regnamespace
          AND c.relkind IN ('r', 'p')
          AND pg_catalog.pg_get_userbyid(c.relowner) = current_user
        ORDER BY c.relname
    LOOP
        EXECUTE format('ANALYZE %s', t);
    END LOOP;
END;
$analyze$;
