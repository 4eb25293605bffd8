-- 0002 performance indexes: paths for the task board (status, priority), a user's tasks, task and agent types, the ranking of
-- active agents, and the list of tasks of one status, newest first.
--
-- Why not the two indexes on task_executions the source puts here: 0004 makes that table, so they are there.
--
-- Locks: each CREATE INDEX keeps writers of its table (not readers) waiting while it builds. It is one transaction on purpose: the
-- file is applied whole or not at all, and a failed CREATE INDEX CONCURRENTLY would leave an INVALID index behind. The tables have
-- thousands of rows when this runs in a new database. For a database that has grown far before it gets here, make the indexes by
-- hand beforehand with CONCURRENTLY under these names, see that each is valid (pg_index.indisvalid), then IF NOT EXISTS passes over them.

CREATE INDEX IF NOT EXISTS ix_tasks_status_priority ON tasks (status, priority) WHERE status IN ('pending', 'executing');
CREATE INDEX IF NOT EXISTS ix_tasks_user_created ON tasks (created_by, created_at);
CREATE INDEX IF NOT EXISTS ix_tasks_type_status ON tasks (task_type, status);
CREATE INDEX IF NOT EXISTS ix_agents_type_status ON agents (type, status);
CREATE INDEX IF NOT EXISTS ix_agents_expertise ON agents (expertise_score) WHERE status = 'active';

-- not in the source: its own list query (one status, newest first, limit and offset) had no index that also gives the order
CREATE INDEX IF NOT EXISTS ix_tasks_status_created ON tasks (status, created_at DESC);
