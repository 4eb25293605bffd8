-- Seed, profile development: a little life to look at in the four views and the lists of the application.
-- Needs schema version 5. Can be run again: what exists is left alone. Times are relative to the first run.
-- The password hashes are not hashes of anything: only the administrator of the common seed can log in.

INSERT INTO users (user_id, username, email, password_hash, roles, permissions, is_verified, last_login_at, login_count) VALUES
    ('user_dev_ada',   'ada',   'ada@amas.local',   '!', '["user"]',     '["tasks:read", "tasks:write"]', true,  CURRENT_TIMESTAMP - interval '20 minutes', 42),
    ('user_dev_brian', 'brian', 'brian@amas.local', '!', '["operator"]', '["tasks:read", "agents:read"]', true,  CURRENT_TIMESTAMP - interval '2 days', 7),
    ('user_dev_cleo',  'cleo',  'cleo@amas.local',  '!', '["user"]',     '["tasks:read"]',                false, NULL, 0)
ON CONFLICT DO NOTHING;

INSERT INTO tasks (task_id, title, description, task_type, status, priority, assigned_agents, created_by, created_at, started_at, completed_at, duration_seconds, success_rate, quality_score, tokens_used, cost_usd)
SELECT v.task_id, v.title, v.description, v.task_type, v.status, v.priority, v.agents::jsonb, v.created_by,
       CURRENT_TIMESTAMP - v.age,
       CASE WHEN v.status IN ('executing', 'completed', 'failed') THEN CURRENT_TIMESTAMP - v.age + interval '5 seconds' END,
       CASE WHEN v.status IN ('completed', 'failed') THEN CURRENT_TIMESTAMP - v.age + interval '5 seconds' + v.seconds * interval '1 second' END,
       v.seconds, CASE v.status WHEN 'completed' THEN 1 WHEN 'failed' THEN 0 END, v.quality, v.tokens, v.cost
FROM (VALUES
    ('dev_task_01', 'Scan the staging host',        'Open ports, weak TLS, known vulnerabilities', 'security_scan', 'completed', 8, '["security_expert"]',                   'user_dev_ada',   interval '3 hours',    95.40, 0.9600, 2150, 0.064500),
    ('dev_task_02', 'Review the import job',        'Memory use and error handling',               'code_analysis', 'completed', 5, '["code_analyzer"]',                     'user_dev_ada',   interval '150 minutes', 210.00, 0.9100, 5300, 0.159000),
    ('dev_task_03', 'Find the slow dashboard query', NULL,                                         'performance',   'failed',    6, '["performance_monitor"]',               'user_dev_brian', interval '2 hours',    30.10, NULL,    800, 0.024000),
    ('dev_task_04', 'Document the REST interface',  'One page an endpoint, with examples',         'documentation', 'executing', 4, '["documentation_specialist"]',          'user_dev_ada',   interval '12 minutes', NULL,  NULL,      0, 0.000000),
    ('dev_task_05', 'Test plan for the next release', NULL,                                        'testing',       'assigned',  7, '["testing_coordinator", "orchestrator"]', 'user_dev_brian', interval '6 minutes',  NULL,  NULL,      0, 0.000000),
    ('dev_task_06', 'Public footprint of the company', NULL,                                       'osint',         'pending',   5, '[]',                                    'scheduler',      interval '1 minute',   NULL,  NULL,      0, 0.000000)
) AS v (task_id, title, description, task_type, status, priority, agents, created_by, age, seconds, quality, tokens, cost)
ON CONFLICT (task_id) DO NOTHING;

-- the executions behind the finished tasks; each new one is also counted at its agent, once
WITH made AS (
    INSERT INTO task_executions (execution_id, task_id, agent_id, status, started_at, completed_at, duration_seconds, provider_used, model_used, tokens_used, cost_usd, quality_score, success)
    SELECT 'dev_execution_' || right(t.task_id, 2), t.task_id, t.assigned_agents ->> 0, t.status, t.started_at, t.completed_at, t.duration_seconds,
           'openai', 'gpt-4-turbo-preview', t.tokens_used, t.cost_usd, t.quality_score, t.status = 'completed'
    FROM tasks t
    JOIN agents a ON a.agent_id = t.assigned_agents ->> 0
    WHERE t.task_id IN ('dev_task_01', 'dev_task_02', 'dev_task_03') AND t.started_at IS NOT NULL
    ON CONFLICT (execution_id) DO NOTHING
    RETURNING agent_id, success, duration_seconds, tokens_used, cost_usd, completed_at
)
UPDATE agents a
SET total_executions       = a.total_executions + m.runs,
    successful_executions  = a.successful_executions + m.good,
    failed_executions      = a.failed_executions + m.runs - m.good,
    total_duration_seconds = a.total_duration_seconds + m.seconds,
    total_tokens_used      = a.total_tokens_used + m.tokens,
    total_cost_usd         = a.total_cost_usd + m.cost,
    last_execution_at      = m.last
FROM (SELECT agent_id, count(*) AS runs, count(*) FILTER (WHERE success) AS good, sum(duration_seconds) AS seconds,
             sum(tokens_used) AS tokens, sum(cost_usd) AS cost, max(completed_at) AS last
      FROM made GROUP BY agent_id) m
WHERE a.agent_id = m.agent_id;

INSERT INTO notifications (notification_id, user_id, type, title, message, priority)
SELECT 'dev_notification_1', u.user_id, 'task.completed', 'Scan the staging host', 'The scan is done: no critical finding.', 'normal'
FROM users u WHERE u.user_id = 'user_dev_ada'
ON CONFLICT (notification_id) DO NOTHING;

-- no unique key here: all samples are there or none
INSERT INTO system_metrics (metric_name, metric_value, metric_type, metric_labels, "timestamp")
SELECT 'dev.memory_bytes', 1500000000 + n * 1048576, 'gauge', '{"host": "sample"}', CURRENT_TIMESTAMP - n * interval '1 minute'
FROM generate_series(0, 9) AS n
WHERE NOT EXISTS (SELECT FROM system_metrics WHERE metric_name = 'dev.memory_bytes');
