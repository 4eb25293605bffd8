-- One row an object of the schema: kind, name, what it is part of, definition. For a search_path of pg_catalog alone,
-- so that every name in a definition is qualified. Left out: the system's schemas and ours, what belongs to an
-- extension, temporary objects, partitions (they come and go with the data), grants to roles that an operator manages.
WITH ext AS MATERIALIZED (
  SELECT classid, objid FROM pg_depend WHERE deptype = 'e'
), sch AS MATERIALIZED (
  SELECT n.oid, n.nspname, n.nspowner, n.nspacl, quote_ident(n.nspname) AS name,
    CASE n.nspname WHEN 'public' THEN '' ELSE quote_ident(n.nspname) || '.' END AS prefix
  FROM pg_namespace n
  WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'amas_migrate', 'amas_operator')
    AND NOT EXISTS (SELECT FROM ext WHERE classid = 'pg_namespace'::regclass AND objid = n.oid)
), rel AS MATERIALIZED (
  SELECT c.*, s.prefix || quote_ident(c.relname) AS name,
    CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence' ELSE 'table' END AS kind
  FROM pg_class c JOIN sch s ON s.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm', 'S') AND NOT c.relispartition AND c.relpersistence <> 't'
    AND c.relname <> '_sqlx_migrations'
    AND NOT EXISTS (SELECT FROM ext WHERE classid = 'pg_class'::regclass AND objid = c.oid)
    AND NOT (c.relkind = 'S' AND EXISTS (SELECT FROM pg_depend d
      WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'i'))
), fun AS MATERIALIZED (
  SELECT p.*, s.prefix || quote_ident(p.proname) || '(' || pg_get_function_identity_arguments(p.oid) || ')' AS name,
    CASE p.prokind WHEN 'a' THEN 'aggregate' WHEN 'p' THEN 'procedure' ELSE 'function' END AS kind
  FROM pg_proc p JOIN sch s ON s.oid = p.pronamespace
  WHERE NOT EXISTS (SELECT FROM ext WHERE classid = 'pg_proc'::regclass AND objid = p.oid)
    -- The constructors of a range type come with it.
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'i')
), typ AS MATERIALIZED (
  SELECT t.*, s.prefix || quote_ident(t.typname) AS name
  FROM pg_type t JOIN sch s ON s.oid = t.typnamespace
  WHERE (t.typtype IN ('e', 'd', 'r')
      OR t.typtype = 'c' AND EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind = 'c'))
    AND NOT EXISTS (SELECT FROM ext WHERE classid = 'pg_type'::regclass AND objid = t.oid)
), managed AS MATERIALIZED (
  SELECT objoid AS role FROM pg_shdescription
  WHERE classoid = 'pg_authid'::regclass AND description LIKE '%amas.dev/claim%'
), db AS (
  SELECT datdba AS owner FROM pg_database WHERE datname = current_database()
), owned AS (
  SELECT upper(kind) || ' ' || name AS name, name AS parent, relowner AS owner FROM rel
  UNION ALL SELECT upper(kind) || ' ' || name, name, proowner FROM fun
  UNION ALL SELECT 'TYPE ' || name, name, typowner FROM typ
  UNION ALL SELECT 'SCHEMA ' || name, name, nspowner FROM sch WHERE nspname <> 'public'
), acl AS (
  SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || name AS name, name AS parent, relowner AS owner,
    relacl AS acl, false AS everybody FROM rel
  UNION ALL SELECT 'TABLE ' || r.name || ' (' || quote_ident(a.attname) || ')', r.name, r.relowner, a.attacl, false
    FROM pg_attribute a JOIN rel r ON r.oid = a.attrelid WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attacl IS NOT NULL
  UNION ALL SELECT CASE prokind WHEN 'p' THEN 'PROCEDURE ' ELSE 'FUNCTION ' END || name, name, proowner, proacl, true FROM fun
  UNION ALL SELECT CASE typtype WHEN 'd' THEN 'DOMAIN ' ELSE 'TYPE ' END || name, name, typowner, typacl, true FROM typ
  UNION ALL SELECT 'SCHEMA ' || name, name, nspowner, nspacl, false FROM sch
), given AS (
  SELECT x.name, x.parent, x.everybody, g.grantee, g.privilege_type || CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END AS privilege
  FROM acl x CROSS JOIN LATERAL aclexplode(x.acl) g
  WHERE g.grantee <> x.owner AND NOT EXISTS (SELECT FROM managed WHERE role = g.grantee)
)
SELECT 'schema' AS kind, name, '' AS parent, '' AS definition FROM sch
UNION ALL
SELECT 'extension', quote_ident(e.extname), '', 'version ' || e.extversion || ' in ' || e.extnamespace::regnamespace
FROM pg_extension e WHERE e.extname <> 'plpgsql'
UNION ALL
SELECT 'table', r.name, '', concat_ws(', ',
  CASE r.relpersistence WHEN 'u' THEN 'UNLOGGED' END,
  CASE r.relkind WHEN 'p' THEN 'PARTITION BY ' || pg_get_partkeydef(r.oid) END,
  (SELECT 'SERVER ' || quote_ident(s.srvname) FROM pg_foreign_table f JOIN pg_foreign_server s ON s.oid = f.ftserver WHERE f.ftrelid = r.oid),
  (SELECT 'INHERITS (' || string_agg(i.inhparent::regclass::text, ', ' ORDER BY i.inhseqno) || ')' FROM pg_inherits i WHERE i.inhrelid = r.oid HAVING count(*) > 0),
  CASE WHEN r.relrowsecurity THEN 'ROW LEVEL SECURITY' END,
  CASE WHEN r.relforcerowsecurity THEN 'FORCE ROW LEVEL SECURITY' END)
FROM rel r WHERE r.kind = 'table'
UNION ALL
SELECT 'column', r.name || '.' || quote_ident(a.attname), r.name, format_type(a.atttypid, a.atttypmod)
  || CASE WHEN a.attcollation <> t.typcollation AND a.attcollation <> 0 THEN ' COLLATE ' || a.attcollation::regcollation ELSE '' END
  || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END
  || CASE a.attidentity WHEN 'a' THEN ' GENERATED ALWAYS AS IDENTITY' WHEN 'd' THEN ' GENERATED BY DEFAULT AS IDENTITY' ELSE '' END
  || CASE WHEN d.oid IS NULL THEN '' WHEN a.attgenerated <> '' THEN ' GENERATED ALWAYS AS (' || pg_get_expr(d.adbin, d.adrelid) || ')'
       || CASE a.attgenerated WHEN 's' THEN ' STORED' ELSE '' END
     ELSE ' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid) END
FROM pg_attribute a JOIN rel r ON r.oid = a.attrelid AND r.kind = 'table' JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT 'constraint', r.name || '.' || quote_ident(k.conname), r.name, pg_get_constraintdef(k.oid)
FROM pg_constraint k JOIN rel r ON r.oid = k.conrelid WHERE k.contype IN ('c', 'f', 'p', 'u', 'x') AND k.conparentid = 0
UNION ALL
SELECT 'index', s.prefix || quote_ident(c.relname), r.name,
  pg_get_indexdef(i.indexrelid) || CASE WHEN i.indisvalid OR r.relkind = 'p' THEN '' ELSE ' INVALID' END
FROM pg_index i JOIN rel r ON r.oid = i.indrelid JOIN pg_class c ON c.oid = i.indexrelid JOIN sch s ON s.oid = c.relnamespace
WHERE NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))
UNION ALL
SELECT r.kind, r.name, '', coalesce('WITH (' || array_to_string(r.reloptions, ', ') || E')\n', '') || pg_get_viewdef(r.oid)
FROM rel r WHERE r.relkind = 'v'
UNION ALL
SELECT r.kind, r.name, '', pg_get_viewdef(r.oid) FROM rel r WHERE r.relkind = 'm'
UNION ALL
SELECT 'sequence', r.name, '', format('AS %s START %s INCREMENT %s MINVALUE %s MAXVALUE %s CACHE %s%s', q.seqtypid::regtype,
  q.seqstart, q.seqincrement, q.seqmin, q.seqmax, q.seqcache, CASE WHEN q.seqcycle THEN ' CYCLE' ELSE '' END)
FROM pg_sequence q JOIN rel r ON r.oid = q.seqrelid
UNION ALL
SELECT f.kind, f.name, '', pg_get_functiondef(f.oid) FROM fun f WHERE f.prokind <> 'a'
UNION ALL
SELECT f.kind, f.name, '', format('SFUNC %s STYPE %s FINALFUNC %s INITCOND %s', a.aggtransfn, a.aggtranstype::regtype, a.aggfinalfn, a.agginitval)
FROM pg_aggregate a JOIN fun f ON f.oid = a.aggfnoid
UNION ALL
SELECT 'trigger', r.name || '.' || quote_ident(t.tgname), r.name,
  pg_get_triggerdef(t.oid) || CASE t.tgenabled WHEN 'D' THEN ' DISABLED' WHEN 'R' THEN ' REPLICA' WHEN 'A' THEN ' ALWAYS' ELSE '' END
FROM pg_trigger t JOIN rel r ON r.oid = t.tgrelid WHERE NOT t.tgisinternal AND t.tgparentid = 0
UNION ALL
SELECT 'rule', r.name || '.' || quote_ident(w.rulename), r.name, pg_get_ruledef(w.oid)
FROM pg_rewrite w JOIN rel r ON r.oid = w.ev_class WHERE w.rulename <> '_RETURN'
UNION ALL
SELECT 'policy', r.name || '.' || quote_ident(p.polname), r.name, concat_ws(' ',
  CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
  'FOR ' || CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
  'TO ' || (SELECT string_agg(CASE o WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(o)) END, ', ' ORDER BY o) FROM unnest(p.polroles) o),
  'USING (' || pg_get_expr(p.polqual, p.polrelid) || ')', 'WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')')
FROM pg_policy p JOIN rel r ON r.oid = p.polrelid
UNION ALL
SELECT 'type', t.name, '', CASE t.typtype
  WHEN 'e' THEN 'ENUM (' || (SELECT string_agg(quote_literal(l.enumlabel), ', ' ORDER BY l.enumsortorder) FROM pg_enum l WHERE l.enumtypid = t.oid) || ')'
  WHEN 'r' THEN 'RANGE OF ' || (SELECT g.rngsubtype::regtype::text FROM pg_range g WHERE g.rngtypid = t.oid)
  WHEN 'c' THEN '(' || (SELECT string_agg(quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum)
    FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) || ')'
  ELSE concat_ws(' ', 'DOMAIN OF ' || format_type(t.typbasetype, t.typtypmod), CASE WHEN t.typnotnull THEN 'NOT NULL' END,
    'DEFAULT ' || t.typdefault,
    (SELECT string_agg(quote_ident(k.conname) || ' ' || pg_get_constraintdef(k.oid), ' ' ORDER BY k.conname)
     FROM pg_constraint k WHERE k.contypid = t.oid AND k.contype = 'c')) END
FROM typ t
UNION ALL
SELECT 'owner', o.name, o.parent, quote_ident(pg_get_userbyid(o.owner)) FROM owned o, db WHERE o.owner <> db.owner
UNION ALL
SELECT 'grant', g.name || ' TO ' || CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END, g.parent,
  string_agg(g.privilege, ', ' ORDER BY g.privilege)
FROM given g WHERE NOT (g.everybody AND g.grantee = 0) GROUP BY g.name, g.parent, g.grantee
UNION ALL
-- What everybody may do with a function or a type unless it was revoked.
SELECT 'grant', x.name || ' TO PUBLIC', x.parent, 'nothing' FROM acl x
WHERE x.everybody AND x.acl IS NOT NULL AND NOT EXISTS (SELECT FROM aclexplode(x.acl) g WHERE g.grantee = 0)
UNION ALL
SELECT 'grant', 'DEFAULT ON ' || CASE x.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS'
    WHEN 'T' THEN 'TYPES' ELSE 'SCHEMAS' END || ' OF ' || quote_ident(pg_get_userbyid(x.defaclrole)) || coalesce(' IN ' || s.name, '')
    || ' TO ' || CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END, coalesce(s.name, ''),
  string_agg(g.privilege_type || CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END, ', ' ORDER BY g.privilege_type)
FROM pg_default_acl x LEFT JOIN sch s ON s.oid = x.defaclnamespace CROSS JOIN LATERAL aclexplode(x.defaclacl) g
WHERE g.grantee <> x.defaclrole AND (x.defaclnamespace = 0 OR s.oid IS NOT NULL)
  AND NOT EXISTS (SELECT FROM managed WHERE role = g.grantee)
GROUP BY x.defaclobjtype, x.defaclrole, s.name, g.grantee
