-- Seed, profile test: the same few rows with the same times in every run, for tests that compare whole results.
-- Needs schema version 5. Can be run again: what exists is left alone. The eight agents keep their zero counters here.
-- The password hashes are not hashes of anything: nobody can log in with these accounts.

INSERT INTO users (user_id, username, email, password_hash, roles, permissions, is_active, is_verified, last_login_at, login_count, created_at, updated_at) VALUES
    ('user_test_1', 'test_one',   'test_one@amas.test',   '!', '["user"]', '["tasks:read", "tasks:write"]', true,  true,  '2025-01-10 08:00:00+00', 3, '2025-01-01 00:00:00+00', '2025-01-01 00:00:00+00'),
    ('user_test_2', 'test_two',   'test_two@amas.test',   '!', '["user"]', '["tasks:read"]',                true,  false, NULL,                     0, '2025-01-02 00:00:00+00', '2025-01-02 00:00:00+00'),
    ('user_test_3', 'test_three', 'test_three@amas.test', '!', '["user"]', '[]',                            false, true,  '2025-01-05 08:00:00+00', 1, '2025-01-03 00:00:00+00', '2025-01-03 00:00:00+00')
ON CONFLICT DO NOTHING;

-- nine tasks, every one of the eight states among them
INSERT INTO tasks (task_id, title, description, task_type, status, priority, assigned_agents, created_by, created_at, updated_at, started_at, completed_at, duration_seconds, success_rate, quality_score, tokens_used, cost_usd) VALUES
    ('test_task_1', 'Scan the login page',        'Vulnerability scan of the login form', 'security_scan',  'completed', 8,  '["security_expert"]',                       'user_test_1', '2025-01-10 09:00:00+00', '2025-01-10 09:02:00+00', '2025-01-10 09:00:30+00', '2025-01-10 09:02:00+00', 90.00, 1.0000, 0.9500, 1200, 0.036000),
    ('test_task_2', 'Review the payment module',  'Quality and security review',          'code_analysis',  'completed', 6,  '["code_analyzer", "security_expert"]',      'user_test_1', '2025-01-10 10:00:00+00', '2025-01-10 10:05:00+00', '2025-01-10 10:00:00+00', '2025-01-10 10:05:00+00', 300.00, 1.0000, 0.9000, 4000, 0.120000),
    ('test_task_3', 'Load test of the search',    NULL,                                   'performance',    'failed',    5,  '["performance_monitor"]',                   'user_test_1', '2025-01-10 11:00:00+00', '2025-01-10 11:01:00+00', '2025-01-10 11:00:00+00', '2025-01-10 11:01:00+00', 60.00, 0.0000, NULL,   500,  0.015000),
    ('test_task_4', 'Write the operations guide', NULL,                                   'documentation',  'executing', 4,  '["documentation_specialist"]',              'user_test_3', '2025-01-10 12:00:00+00', '2025-01-10 12:00:10+00', '2025-01-10 12:00:10+00', NULL,                     NULL,  NULL,   NULL,   0,    0.000000),
    ('test_task_5', 'Plan the regression tests',  NULL,                                   'testing',        'assigned',  9,  '["testing_coordinator", "orchestrator"]',   'user_test_3', '2025-01-10 12:30:00+00', '2025-01-10 12:30:00+00', NULL,                     NULL,                     NULL,  NULL,   NULL,   0,    0.000000),
    ('test_task_6', 'Collect public records',     NULL,                                   'osint',          'pending',   5,  '[]',                                        'scheduler',   '2025-01-10 13:00:00+00', '2025-01-10 13:00:00+00', NULL,                     NULL,                     NULL,  NULL,   NULL,   0,    0.000000),
    ('test_task_7', 'Image a disk',               NULL,                                   'forensics',      'timeout',   3,  '["forensics_investigator"]',                'scheduler',   '2025-01-10 14:00:00+00', '2025-01-10 15:00:00+00', '2025-01-10 14:00:00+00', '2025-01-10 15:00:00+00', 3600.00, NULL, NULL,   0,    0.000000),
    ('test_task_8', 'Old request',                NULL,                                   'documentation',  'cancelled', 1,  '[]',                                        NULL,          '2025-01-10 15:00:00+00', '2025-01-10 15:00:00+00', NULL,                     NULL,                     NULL,  NULL,   NULL,   0,    0.000000),
    ('test_task_9', 'Scan again after an error',  NULL,                                   'security_scan',  'retrying',  10, '["security_expert"]',                       'user_test_1', '2025-01-10 16:00:00+00', '2025-01-10 16:00:00+00', NULL,                     NULL,                     NULL,  NULL,   NULL,   0,    0.000000)
ON CONFLICT (task_id) DO NOTHING;

INSERT INTO task_executions (execution_id, task_id, agent_id, status, started_at, completed_at, duration_seconds, provider_used, model_used, tokens_used, cost_usd, quality_score, success, created_at) VALUES
    ('test_execution_1', 'test_task_1', 'security_expert',     'completed', '2025-01-10 09:00:30+00', '2025-01-10 09:02:00+00',  90.00, 'openai', 'gpt-4-turbo-preview', 1200, 0.036000, 0.9500, true,  '2025-01-10 09:00:30+00'),
    ('test_execution_2', 'test_task_2', 'code_analyzer',       'completed', '2025-01-10 10:00:00+00', '2025-01-10 10:03:00+00', 180.00, 'openai', 'gpt-4-turbo-preview', 3000, 0.090000, 0.9200, true,  '2025-01-10 10:00:00+00'),
    ('test_execution_3', 'test_task_2', 'security_expert',     'completed', '2025-01-10 10:03:00+00', '2025-01-10 10:05:00+00', 120.00, 'openai', 'gpt-4-turbo-preview', 1000, 0.030000, 0.8800, true,  '2025-01-10 10:03:00+00'),
    ('test_execution_4', 'test_task_3', 'performance_monitor', 'failed',    '2025-01-10 11:00:00+00', '2025-01-10 11:01:00+00',  60.00, 'openai', 'gpt-4-turbo-preview',  500, 0.015000, NULL,   false, '2025-01-10 11:00:00+00')
ON CONFLICT (execution_id) DO NOTHING;

INSERT INTO audit_logs (event_id, "timestamp", user_id, user_ip, action, resource_type, resource_id, result) VALUES
    ('test_event_1', '2025-01-10 08:00:00+00', 'user_test_1', '192.0.2.1',   'login',       'session', NULL,          'success'),
    ('test_event_2', '2025-01-10 08:30:00+00', NULL,          '2001:db8::1', 'login',       'session', NULL,          'denied'),
    ('test_event_3', '2025-01-10 09:00:00+00', 'user_test_1', '192.0.2.1',   'task.create', 'task',    'test_task_1', 'success')
ON CONFLICT (event_id) DO NOTHING;

-- no unique key here: the whole conversation is there or it is not
INSERT INTO conversations (conversation_id, session_id, user_id, role, content, agent_id, task_id, tokens_used, cost_usd, created_at)
SELECT 'test_conversation_1', 'test_session_1', 'user_test_1', m.role, m.content, m.agent_id, 'test_task_1', m.tokens, m.cost, m.created_at
FROM (VALUES
    ('user',      'Is the login page safe?',     NULL,              0,   0.000000, timestamptz '2025-01-10 08:59:00+00'),
    ('assistant', 'I will scan it and report.',  'security_expert', 120, 0.003600, timestamptz '2025-01-10 08:59:05+00')
) AS m (role, content, agent_id, tokens, cost, created_at)
WHERE NOT EXISTS (SELECT FROM conversations WHERE conversation_id = 'test_conversation_1')
ORDER BY m.created_at;
