-- 0002 down: the indexes of 0002 in reverse order. No data is lost; queries get slower.

DROP INDEX ix_tasks_status_created;
DROP INDEX ix_agents_expertise;
DROP INDEX ix_agents_type_status;
DROP INDEX ix_tasks_type_status;
DROP INDEX ix_tasks_user_created;
DROP INDEX ix_tasks_status_priority;
