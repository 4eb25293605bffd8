-- 0001 down: everything 0001 made, in reverse order. Destroys all data of the platform. Indexes, triggers, owned sequences and
-- comments go with their tables; nothing is dropped by CASCADE, so an object made by others stops this instead of vanishing.

DROP VIEW system_health_metrics;
DROP VIEW user_activity;
DROP VIEW agent_performance;
DROP VIEW active_tasks;

DROP TRIGGER update_integrations_updated_at ON integrations;
DROP TRIGGER update_api_keys_updated_at ON api_keys;
DROP TRIGGER update_tasks_updated_at ON tasks;
DROP TRIGGER update_agents_updated_at ON agents;
DROP TRIGGER update_users_updated_at ON users;
DROP FUNCTION update_updated_at_column();

DROP TABLE notifications;
DROP TABLE ml_training_data;
DROP TABLE webhooks;
DROP TABLE integrations;
DROP TABLE api_keys;
DROP TABLE audit_logs;
DROP TABLE system_metrics;
DROP TABLE conversations;
DROP TABLE tasks;
DROP TABLE agents;
DROP TABLE users;
