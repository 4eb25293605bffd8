-- 0001 initial schema: eleven tables, their indexes, the updated_at trigger, four views.
--
-- Why: this is the data model of AMAS itself; everything later only alters it. The tables are new, so plain CREATE INDEX is
-- right here: there is nobody to block.
--
-- How it is run: one transaction, as the owner role (not a superuser), search_path = public. Extensions, accounts and grants are
-- the operator's; this file makes none. Rules kept in every table (docs/platforms/amas.md says which mistake of the source each answers):
--   * points in time are timestamptz; a column with a default is NOT NULL;
--   * keys of tables that only grow, and lifetime totals, are 64 bit; money has six decimals everywhere;
--   * a unique constraint is its own index and is not repeated under a second name;
--   * a column comment ending in "amas:secret" keeps the column out of read-only roles.

-- ---------------------------------------------------------------------------------------------------------------- tables

CREATE TABLE users (
    id                    serial       NOT NULL,
    user_id               varchar(255) NOT NULL,
    username              varchar(255) NOT NULL,
    email                 varchar(255) NOT NULL,
    password_hash         varchar(255) NOT NULL,
    roles                 jsonb        NOT NULL DEFAULT '[]',
    permissions           jsonb        NOT NULL DEFAULT '[]',
    mfa_enabled           boolean      NOT NULL DEFAULT false,
    mfa_secret            varchar(255),
    api_keys              jsonb        NOT NULL DEFAULT '[]',
    is_active             boolean      NOT NULL DEFAULT true,
    is_verified           boolean      NOT NULL DEFAULT false,
    last_login_at         timestamptz,
    login_count           integer      NOT NULL DEFAULT 0,
    failed_login_attempts integer      NOT NULL DEFAULT 0,
    account_locked_until  timestamptz,
    metadata              jsonb        NOT NULL DEFAULT '{}',
    created_at            timestamptz  NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at            timestamptz  NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT users_pkey PRIMARY KEY (id),
    CONSTRAINT users_user_id_key UNIQUE (user_id),
    CONSTRAINT users_username_key UNIQUE (username),
    CONSTRAINT users_email_key UNIQUE (email)
);
COMMENT ON TABLE users IS 'Accounts: identity, roles, login and lock-out state. user_id is the key other tables refer to.';
COMMENT ON COLUMN users.password_hash IS 'bcrypt hash, cost 12; never the password. amas:secret';
COMMENT ON COLUMN users.mfa_secret IS 'Second-factor seed; encryption is the application''s. amas:secret';
COMMENT ON COLUMN users.api_keys IS 'Older place for keys; table api_keys is the one to use. amas:secret';
COMMENT ON COLUMN users.account_locked_until IS 'Logins are refused until then; NULL when not locked.';

CREATE TABLE agents (
    id                     serial        NOT NULL,
    agent_id               varchar(255)  NOT NULL,
    name                   varchar(255)  NOT NULL,
    type                   varchar(100)  NOT NULL,
    status                 varchar(50)   NOT NULL DEFAULT 'active',
    capabilities           jsonb         NOT NULL DEFAULT '[]',
    configuration          jsonb         NOT NULL DEFAULT '{}',
    system_prompt          text,
    model_preference       varchar(100),
    strategy               varchar(50)   NOT NULL DEFAULT 'quality_first',
    performance_metrics    jsonb         NOT NULL DEFAULT '{}',
    expertise_score        numeric(5,4)  NOT NULL DEFAULT 0.9000,
    total_executions       bigint        NOT NULL DEFAULT 0,
    successful_executions  bigint        NOT NULL DEFAULT 0,
    failed_executions      bigint        NOT NULL DEFAULT 0,
    total_duration_seconds numeric(16,2) NOT NULL DEFAULT 0.00,
    total_tokens_used      bigint        NOT NULL DEFAULT 0,
    total_cost_usd         numeric(18,6) NOT NULL DEFAULT 0.000000,
    last_execution_at      timestamptz,
    created_at             timestamptz   NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at             timestamptz   NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT agents_pkey PRIMARY KEY (id),
    CONSTRAINT agents_agent_id_key UNIQUE (agent_id),
    CONSTRAINT agents_status_check CHECK (status IN ('active', 'inactive', 'maintenance', 'error'))
);
COMMENT ON TABLE agents IS 'The AI agents: what each is for, how it is set up, and its lifetime totals.';
COMMENT ON COLUMN agents.expertise_score IS 'Standing skill estimate, 0 to 1; ranks agents.';
COMMENT ON COLUMN agents.total_duration_seconds IS 'Sum over all executions since the agent exists.';

CREATE TABLE tasks (
    id                 serial        NOT NULL,
    task_id            varchar(255)  NOT NULL,
    title              varchar(500)  NOT NULL,
    description        text,
    task_type          varchar(100)  NOT NULL,
    target             text,
    parameters         jsonb         NOT NULL DEFAULT '{}',
    status             varchar(50)   NOT NULL DEFAULT 'pending',
    priority           integer       NOT NULL DEFAULT 5,
    assigned_agents    jsonb         NOT NULL DEFAULT '[]',
    execution_metadata jsonb         NOT NULL DEFAULT '{}',
    result             jsonb,
    error_details      jsonb,
    prediction         jsonb,
    ai_providers_used  jsonb         NOT NULL DEFAULT '[]',
    created_by         varchar(255),
    created_at         timestamptz   NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at         timestamptz   NOT NULL DEFAULT CURRENT_TIMESTAMP,
    started_at         timestamptz,
    completed_at       timestamptz,
    duration_seconds   numeric(10,2),
    success_rate       numeric(5,4),
    quality_score      numeric(5,4),
    tokens_used        integer       NOT NULL DEFAULT 0,
    cost_usd           numeric(14,6) NOT NULL DEFAULT 0.000000,
    CONSTRAINT tasks_pkey PRIMARY KEY (id),
    CONSTRAINT tasks_task_id_key UNIQUE (task_id),
    CONSTRAINT tasks_status_check CHECK (status IN
        ('pending', 'assigned', 'executing', 'completed', 'failed', 'timeout', 'cancelled', 'retrying')),
    CONSTRAINT tasks_priority_check CHECK (priority BETWEEN 1 AND 10),
    -- active_tasks counts the elements: one object or string here would break the view for everybody
    CONSTRAINT tasks_assigned_agents_check CHECK (jsonb_typeof(assigned_agents) = 'array')
);
COMMENT ON TABLE tasks IS 'Work given to the agents, with its state, outcome and cost.';
COMMENT ON COLUMN tasks.priority IS '1 (least) to 10 (most urgent).';
COMMENT ON COLUMN tasks.assigned_agents IS 'JSON array of agent_id.';
COMMENT ON COLUMN tasks.created_by IS 'A user_id, or free text such as a service name: no foreign key on purpose.';

CREATE TABLE conversations (
    id              bigserial     NOT NULL,
    conversation_id varchar(255)  NOT NULL,
    session_id      varchar(255)  NOT NULL,
    user_id         varchar(255),
    role            varchar(50)   NOT NULL,
    content         text          NOT NULL,
    agent_id        varchar(255),
    task_id         varchar(255),
    metadata        jsonb         NOT NULL DEFAULT '{}',
    tokens_used     integer       NOT NULL DEFAULT 0,
    cost_usd        numeric(14,6) NOT NULL DEFAULT 0.000000,
    created_at      timestamptz   NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT conversations_pkey PRIMARY KEY (id),
    CONSTRAINT conversations_role_check CHECK (role IN ('user', 'assistant', 'system', 'tool'))
);
COMMENT ON TABLE conversations IS 'One row a message; a conversation is all rows with its conversation_id. A log: it outlives users, agents and tasks, so no foreign keys.';

CREATE TABLE system_metrics (
    id            bigserial    NOT NULL,
    metric_name   varchar(255) NOT NULL,
    metric_value  numeric      NOT NULL,
    metric_type   varchar(50),
    metric_labels jsonb        NOT NULL DEFAULT '{}',
    "timestamp"   timestamptz  NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT system_metrics_pkey PRIMARY KEY (id)
);
COMMENT ON TABLE system_metrics IS 'Samples of measured values, append only.';
COMMENT ON COLUMN system_metrics.metric_value IS 'Any magnitude and precision: byte counts as well as ratios.';

CREATE TABLE audit_logs (
    id            bigserial    NOT NULL,
    event_id      varchar(255) NOT NULL,
    "timestamp"   timestamptz  NOT NULL DEFAULT CURRENT_TIMESTAMP,
    user_id       varchar(255),
    user_ip       varchar(45),
    action        varchar(255) NOT NULL,
    resource_type varchar(100) NOT NULL,
    resource_id   varchar(255),
    result        varchar(50)  NOT NULL,
    details       jsonb        NOT NULL DEFAULT '{}',
    session_id    varchar(255),
    user_agent    text,
    CONSTRAINT audit_logs_pkey PRIMARY KEY (id),
    CONSTRAINT audit_logs_event_id_key UNIQUE (event_id),
    CONSTRAINT audit_logs_result_check CHECK (result IN ('success', 'failure', 'denied', 'error'))
);
COMMENT ON TABLE audit_logs IS 'Who did what, from where, with which result; append only. Records unknown and deleted users too, so user_id has no foreign key.';
COMMENT ON COLUMN audit_logs.user_ip IS '45 characters hold the longest text form of an IPv6 address.';

CREATE TABLE api_keys (
    id                    serial       NOT NULL,
    key_id                varchar(255) NOT NULL,
    user_id               varchar(255) NOT NULL,
    key_hash              varchar(255) NOT NULL,
    key_prefix            varchar(20)  NOT NULL,
    name                  varchar(255),
    scopes                jsonb        NOT NULL DEFAULT '[]',
    rate_limit_per_minute integer      NOT NULL DEFAULT 100,
    is_active             boolean      NOT NULL DEFAULT true,
    last_used_at          timestamptz,
    usage_count           bigint       NOT NULL DEFAULT 0,
    expires_at            timestamptz,
    created_at            timestamptz  NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at            timestamptz  NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT api_keys_pkey PRIMARY KEY (id),
    CONSTRAINT api_keys_key_id_key UNIQUE (key_id),
    CONSTRAINT api_keys_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (user_id) ON DELETE CASCADE
);
COMMENT ON TABLE api_keys IS 'API keys as hash and prefix, with scopes, rate limit and expiry. A key goes with its user.';
COMMENT ON COLUMN api_keys.key_hash IS 'Hash of the key; the key itself is stored nowhere. amas:secret';
COMMENT ON COLUMN api_keys.key_prefix IS 'First characters of the key, to recognise and look it up.';

CREATE TABLE integrations (
    id             serial       NOT NULL,
    integration_id varchar(255) NOT NULL,
    user_id        varchar(255) NOT NULL,
    platform       varchar(100) NOT NULL,
    status         varchar(50)  NOT NULL DEFAULT 'active',
    credentials    jsonb,
    configuration  jsonb        NOT NULL DEFAULT '{}',
    webhook_url    text,
    webhook_secret varchar(255),
    last_sync_at   timestamptz,
    sync_count     bigint       NOT NULL DEFAULT 0,
    error_count    bigint       NOT NULL DEFAULT 0,
    last_error     text,
    created_at     timestamptz  NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at     timestamptz  NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT integrations_pkey PRIMARY KEY (id),
    CONSTRAINT integrations_integration_id_key UNIQUE (integration_id),
    CONSTRAINT integrations_status_check CHECK (status IN ('active', 'inactive', 'error', 'pending'))
);
COMMENT ON TABLE integrations IS 'Connections of users to outside platforms.';
COMMENT ON COLUMN integrations.credentials IS 'Access data of the outside platform; encryption is the application''s. amas:secret';
COMMENT ON COLUMN integrations.webhook_secret IS 'Signing secret of incoming webhooks. amas:secret';

CREATE TABLE webhooks (
    id                   bigserial    NOT NULL,
    webhook_id           varchar(255) NOT NULL,
    integration_id       varchar(255),
    event_type           varchar(100) NOT NULL,
    payload              jsonb        NOT NULL,
    status               varchar(50)  NOT NULL DEFAULT 'pending',
    attempts             integer      NOT NULL DEFAULT 0,
    last_attempt_at      timestamptz,
    response_status_code integer,
    response_body        text,
    error                text,
    scheduled_at         timestamptz  NOT NULL DEFAULT CURRENT_TIMESTAMP,
    processed_at         timestamptz,
    created_at           timestamptz  NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT webhooks_pkey PRIMARY KEY (id),
    CONSTRAINT webhooks_webhook_id_key UNIQUE (webhook_id),
    CONSTRAINT webhooks_status_check CHECK (status IN ('pending', 'processing', 'completed', 'failed', 'cancelled')),
    CONSTRAINT webhooks_integration_id_fkey FOREIGN KEY (integration_id) REFERENCES integrations (integration_id) ON DELETE SET NULL
);
COMMENT ON TABLE webhooks IS 'Webhook deliveries and their attempts. The record stays when the integration goes.';

CREATE TABLE ml_training_data (
    id         bigserial    NOT NULL,
    data_id    varchar(255) NOT NULL,
    data_type  varchar(100) NOT NULL,
    task_id    varchar(255),
    features   jsonb        NOT NULL,
    labels     jsonb        NOT NULL,
    metadata   jsonb        NOT NULL DEFAULT '{}',
    created_at timestamptz  NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT ml_training_data_pkey PRIMARY KEY (id),
    CONSTRAINT ml_training_data_data_id_key UNIQUE (data_id),
    CONSTRAINT ml_training_data_type_check CHECK (data_type IN ('task_outcome', 'resource_usage', 'agent_performance'))
);
COMMENT ON TABLE ml_training_data IS 'Training samples of the prediction models.';
COMMENT ON COLUMN ml_training_data.labels IS 'The target values of the sample.';

CREATE TABLE notifications (
    id              bigserial    NOT NULL,
    notification_id varchar(255) NOT NULL,
    user_id         varchar(255) NOT NULL,
    type            varchar(100) NOT NULL,
    title           varchar(500) NOT NULL,
    message         text         NOT NULL,
    data            jsonb        NOT NULL DEFAULT '{}',
    is_read         boolean      NOT NULL DEFAULT false,
    read_at         timestamptz,
    priority        varchar(50)  NOT NULL DEFAULT 'normal',
    expires_at      timestamptz,
    created_at      timestamptz  NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT notifications_pkey PRIMARY KEY (id),
    CONSTRAINT notifications_notification_id_key UNIQUE (notification_id),
    CONSTRAINT notifications_priority_check CHECK (priority IN ('low', 'normal', 'high', 'urgent')),
    CONSTRAINT notifications_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (user_id) ON DELETE CASCADE
);
COMMENT ON TABLE notifications IS 'Messages to users. They go with their user.';

-- --------------------------------------------------------------------------------------------------------------- indexes
-- The lookups by the eleven unique keys (user_id, username, email, agent_id, task_id, ...) are served by the unique constraints.

CREATE INDEX idx_users_is_active ON users (is_active);

CREATE INDEX idx_agents_type ON agents (type);
CREATE INDEX idx_agents_status ON agents (status);
CREATE INDEX idx_agents_performance ON agents (expertise_score DESC);

CREATE INDEX idx_tasks_status ON tasks (status);
CREATE INDEX idx_tasks_type ON tasks (task_type);
CREATE INDEX idx_tasks_priority ON tasks (priority DESC);
CREATE INDEX idx_tasks_created_by ON tasks (created_by);
CREATE INDEX idx_tasks_created_at ON tasks (created_at DESC);
CREATE INDEX idx_tasks_status_priority ON tasks (status, priority DESC);
CREATE INDEX idx_tasks_assigned_agents ON tasks USING gin (assigned_agents);
-- a query uses it only when it writes this very expression
CREATE INDEX idx_tasks_fulltext ON tasks
    USING gin (to_tsvector('english', COALESCE(title, '') || ' ' || COALESCE(description, '')));

CREATE INDEX idx_conversations_conversation_id ON conversations (conversation_id);
CREATE INDEX idx_conversations_session_id ON conversations (session_id);
CREATE INDEX idx_conversations_user_id ON conversations (user_id);
CREATE INDEX idx_conversations_created_at ON conversations (created_at DESC);

CREATE INDEX idx_system_metrics_name ON system_metrics (metric_name);
CREATE INDEX idx_system_metrics_timestamp ON system_metrics ("timestamp" DESC);
CREATE INDEX idx_system_metrics_name_timestamp ON system_metrics (metric_name, "timestamp" DESC);

CREATE INDEX idx_audit_logs_user_id ON audit_logs (user_id);
CREATE INDEX idx_audit_logs_timestamp ON audit_logs ("timestamp" DESC);
CREATE INDEX idx_audit_logs_action ON audit_logs (action);
CREATE INDEX idx_audit_logs_resource ON audit_logs (resource_type, resource_id);

CREATE INDEX idx_api_keys_user_id ON api_keys (user_id);
CREATE INDEX idx_api_keys_key_prefix ON api_keys (key_prefix);
CREATE INDEX idx_api_keys_is_active ON api_keys (is_active);

CREATE INDEX idx_integrations_user_id ON integrations (user_id);
CREATE INDEX idx_integrations_platform ON integrations (platform);
CREATE INDEX idx_integrations_status ON integrations (status);

CREATE INDEX idx_webhooks_integration_id ON webhooks (integration_id);
CREATE INDEX idx_webhooks_status ON webhooks (status);
CREATE INDEX idx_webhooks_scheduled_at ON webhooks (scheduled_at);

CREATE INDEX idx_ml_training_data_type ON ml_training_data (data_type);
CREATE INDEX idx_ml_training_data_task_id ON ml_training_data (task_id);
CREATE INDEX idx_ml_training_data_created_at ON ml_training_data (created_at DESC);

CREATE INDEX idx_notifications_user_id ON notifications (user_id);
CREATE INDEX idx_notifications_is_read ON notifications (is_read);
CREATE INDEX idx_notifications_created_at ON notifications (created_at DESC);
CREATE INDEX idx_notifications_user_unread ON notifications (user_id, is_read) WHERE is_read = FALSE;

-- ------------------------------------------------------------------------------------------------- function and triggers

CREATE OR REPLACE FUNCTION update_updated_at_column() RETURNS trigger
    LANGUAGE plpgsql
AS $$
BEGIN
    NEW.updated_at := CURRENT_TIMESTAMP;
    RETURN NEW;
END;
$$;
COMMENT ON FUNCTION update_updated_at_column() IS 'Row trigger: updated_at becomes the time of the writing transaction, whatever the statement set.';

-- exactly the five tables that have an updated_at column
CREATE OR REPLACE TRIGGER update_users_updated_at BEFORE UPDATE ON users
    FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
CREATE OR REPLACE TRIGGER update_agents_updated_at BEFORE UPDATE ON agents
    FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
CREATE OR REPLACE TRIGGER update_tasks_updated_at BEFORE UPDATE ON tasks
    FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
CREATE OR REPLACE TRIGGER update_api_keys_updated_at BEFORE UPDATE ON api_keys
    FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
CREATE OR REPLACE TRIGGER update_integrations_updated_at BEFORE UPDATE ON integrations
    FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();

-- ----------------------------------------------------------------------------------------------------------------- views
-- Each order ends in a key, so that equal rows come in the same order every time.

CREATE OR REPLACE VIEW active_tasks AS
SELECT task_id,
       title,
       task_type,
       status,
       priority,
       created_at,
       started_at,
       EXTRACT(EPOCH FROM CURRENT_TIMESTAMP - started_at) AS running_seconds,
       jsonb_array_length(assigned_agents) AS agent_count
FROM tasks
WHERE status IN ('executing', 'assigned')
ORDER BY priority DESC, created_at ASC, task_id;
COMMENT ON VIEW active_tasks IS 'Tasks being worked on or about to be, most urgent first. running_seconds is NULL until the task starts.';

CREATE OR REPLACE VIEW agent_performance AS
SELECT agent_id,
       name,
       type,
       status,
       expertise_score,
       total_executions,
       successful_executions,
       failed_executions,
       CASE WHEN total_executions > 0
            THEN round(successful_executions * 100.0 / total_executions, 2)
            ELSE 0
       END AS success_rate_percent,
       CASE WHEN successful_executions > 0
            THEN round(total_duration_seconds / successful_executions, 2)
            ELSE 0
       END AS avg_duration_seconds,
       total_cost_usd,
       last_execution_at
FROM agents
ORDER BY expertise_score DESC, success_rate_percent DESC, agent_id;
COMMENT ON VIEW agent_performance IS 'Every agent with its success rate and mean duration, best first; both 0 before the first execution.';

CREATE OR REPLACE VIEW user_activity AS
SELECT u.user_id,
       u.username,
       u.email,
       u.is_active,
       u.last_login_at,
       u.login_count,
       count(t.id) AS total_tasks,
       count(t.id) FILTER (WHERE t.status = 'completed') AS completed_tasks,
       count(t.id) FILTER (WHERE t.status = 'failed') AS failed_tasks
FROM users u
LEFT JOIN tasks t ON t.created_by = u.user_id
GROUP BY u.user_id, u.username, u.email, u.is_active, u.last_login_at, u.login_count
ORDER BY u.last_login_at DESC NULLS LAST, u.user_id;
COMMENT ON VIEW user_activity IS 'Every user with the tasks he created, last login first.';

-- one pass over each table; the order of the eight rows is part of the result, so it is stated and not left to the plan
CREATE OR REPLACE VIEW system_health_metrics AS
SELECT m.metric, m.value, m.unit
FROM (SELECT count(*) AS total,
             count(*) FILTER (WHERE status = 'completed') AS completed,
             count(*) FILTER (WHERE status IN ('executing', 'assigned')) AS active,
             round(avg(duration_seconds) FILTER (WHERE status = 'completed'), 2) AS avg_duration
      FROM tasks) t
CROSS JOIN (SELECT count(*) AS total, count(*) FILTER (WHERE status = 'active') AS active FROM agents) a
CROSS JOIN (SELECT count(*) AS total, count(*) FILTER (WHERE is_active) AS active FROM users) u
CROSS JOIN LATERAL (VALUES
    (1, 'total_tasks',       t.total::text,        NULL::text),
    (2, 'completed_tasks',   t.completed::text,    NULL),
    (3, 'active_tasks',      t.active::text,       NULL),
    (4, 'total_agents',      a.total::text,        NULL),
    (5, 'active_agents',     a.active::text,       NULL),
    (6, 'avg_task_duration', t.avg_duration::text, 'seconds'),
    (7, 'total_users',       u.total::text,        NULL),
    (8, 'active_users',      u.active::text,       NULL)
) AS m (position, metric, value, unit)
ORDER BY m.position;
COMMENT ON VIEW system_health_metrics IS 'Eight figures of the whole system, one a row, in a fixed order.';
