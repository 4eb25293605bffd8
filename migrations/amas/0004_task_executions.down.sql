-- 0004 down: indexes in reverse order, then the table with all recorded executions.

DROP INDEX ix_executions_task_created;
DROP INDEX ix_executions_agent_completed;
DROP INDEX ix_executions_status;
DROP INDEX ix_executions_started_at;
DROP INDEX ix_executions_agent_id;
DROP INDEX ix_executions_task_id;

DROP TABLE task_executions;
