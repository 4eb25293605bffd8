//! The tables the engine writes, and the message that makes them.

use crate::{
    api::names::SqlName,
    migrate::{backup, deposit, drift, progress},
};

use super::literal;

/// The comment on schema `amas_migrate`: which layout its tables have. A later release upgrades from here.
pub const LAYOUT: &str = "amas-operator migration records, layout 6";
/// Layouts that [`bootstrap`] brings to this one.
pub const OLDER: &[&str] = &[
    "amas-operator migration records, layout 1",
    "amas-operator migration records, layout 2",
    "amas-operator migration records, layout 3",
    "amas-operator migration records, layout 4",
    "amas-operator migration records, layout 5",
];

/// Creates what is absent in one transaction and takes away whatever rights default privileges gave to others. What is written into the tables waits for
/// the disk, and for this with it.
pub fn bootstrap(schema: &SqlName) -> String {
    format!(
        "BEGIN; SET LOCAL synchronous_commit = off;\n\
         CREATE TABLE IF NOT EXISTS \"{schema}\"._sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL, \
         installed_on TIMESTAMPTZ NOT NULL DEFAULT now(), success BOOLEAN NOT NULL, checksum BYTEA NOT NULL, \
         execution_time BIGINT NOT NULL);\n{TABLES}{progress}{drift}{files}{backups}\n\
         COMMENT ON SCHEMA amas_migrate IS {layout};\n{revoke}\nCOMMIT",
        progress = progress::TABLE,
        drift = drift::TABLES,
        files = deposit::TABLE,
        backups = backup::TABLE,
        layout = literal(LAYOUT),
        revoke = REVOKE.replace("$SCHEMA", &literal(schema.as_str())),
    )
}

const TABLES: &str = "
CREATE SCHEMA IF NOT EXISTS amas_migrate;
CREATE TABLE IF NOT EXISTS amas_migrate.runs (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    plan_hash        text,
    attempt          text NOT NULL,
    direction        text NOT NULL CHECK (direction IN ('up', 'down', 'seed')),
    started_at       timestamptz NOT NULL DEFAULT pg_catalog.now(),
    finished_at      timestamptz,
    heartbeat_at     timestamptz NOT NULL DEFAULT pg_catalog.now(),
    outcome          text CHECK (outcome IN ('succeeded', 'failed', 'interrupted')),
    from_version     bigint NOT NULL,
    to_version       bigint NOT NULL,
    current_version  bigint NOT NULL,
    total            integer NOT NULL,
    done             integer NOT NULL DEFAULT 0,
    failed_version   bigint,
    sqlstate         text,
    file             text,
    line             integer,
    message          text,
    error_position   integer,
    waiting          text,
    error_column     integer
);
ALTER TABLE amas_migrate.runs ADD COLUMN IF NOT EXISTS waiting text, ADD COLUMN IF NOT EXISTS error_column integer;
CREATE TABLE IF NOT EXISTS amas_migrate.history (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id           bigint,
    version          bigint NOT NULL,
    description      text NOT NULL,
    direction        text NOT NULL CHECK (direction IN ('up', 'down', 'stamp')),
    checksum         bytea NOT NULL,
    applied_at       timestamptz NOT NULL DEFAULT pg_catalog.now(),
    applied_by       text NOT NULL DEFAULT session_user,
    application      text NOT NULL DEFAULT pg_catalog.current_setting('application_name'),
    execution_ms     bigint,
    down_sql         text,
    down_checksum    bytea
);
CREATE INDEX IF NOT EXISTS history_version ON amas_migrate.history (version, id);
CREATE TABLE IF NOT EXISTS amas_migrate.seeds (
    profile          text NOT NULL,
    name             text NOT NULL,
    checksum         bytea NOT NULL,
    applied_at       timestamptz NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (profile, name)
);";

const REVOKE: &str = "DO $amas$
DECLARE r record;
BEGIN
    FOR r IN
        SELECT DISTINCT pg_catalog.format('%s %I.%I', CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, n.nspname, c.relname) AS object, a.grantee
        FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) a
        WHERE (n.nspname = 'amas_migrate' OR (n.nspname = $SCHEMA AND c.relname = '_sqlx_migrations'))
          AND c.relkind IN ('r', 'S') AND a.grantee <> c.relowner
        UNION
        SELECT pg_catalog.format('SCHEMA %I', n.nspname), a.grantee
        FROM pg_catalog.pg_namespace n CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) a
        WHERE n.nspname = 'amas_migrate' AND a.grantee <> n.nspowner
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON %s FROM %s', r.object,
            CASE r.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(r.grantee)) END);
    END LOOP;
END;
$amas$;";
