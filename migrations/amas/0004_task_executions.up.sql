-- 0004 task executions: one row each time an agent runs a task, with its six indexes beside the keys (two of them belonged to 0002 in the source,
-- which ran before the table existed).
--
-- Why created_at: the source indexes the column (ix_executions_task_created) but forgets it in the table.
-- status has no list of allowed values, as in the source, which does not say which there are.
--
-- Locks: the table is new, so its indexes block nobody; the two foreign keys lock tasks and agents against writes for a moment.

CREATE TABLE task_executions (
    id                 bigserial    NOT NULL,
    execution_id       varchar(255) NOT NULL,
    task_id            varchar(255) NOT NULL,
    agent_id           varchar(255) NOT NULL,
    status             varchar(50)  NOT NULL DEFAULT 'running',
    started_at         timestamptz  NOT NULL,
    completed_at       timestamptz,
    duration_seconds   numeric(10,2),
    provider_used      varchar(100),
    model_used         varchar(100),
    tokens_used        integer,
    cost_usd           numeric(14,6),
    quality_score      numeric(5,4),
    success            boolean,
    error_details      jsonb,
    execution_metadata jsonb,
    created_at         timestamptz  NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT task_executions_pkey PRIMARY KEY (id),
    CONSTRAINT task_executions_execution_id_key UNIQUE (execution_id),
    CONSTRAINT task_executions_task_id_fkey FOREIGN KEY (task_id) REFERENCES tasks (task_id) ON DELETE CASCADE,
    CONSTRAINT task_executions_agent_id_fkey FOREIGN KEY (agent_id) REFERENCES agents (agent_id) ON DELETE CASCADE
);
COMMENT ON TABLE task_executions IS 'One run of a task by an agent. Goes with its task and with its agent.';
COMMENT ON COLUMN task_executions.success IS 'NULL while running.';

CREATE INDEX ix_executions_task_id ON task_executions (task_id);
CREATE INDEX ix_executions_agent_id ON task_executions (agent_id);
CREATE INDEX ix_executions_started_at ON task_executions (started_at);
CREATE INDEX ix_executions_status ON task_executions (status);
CREATE INDEX ix_executions_agent_completed ON task_executions (agent_id, completed_at);
CREATE INDEX ix_executions_task_created ON task_executions (task_id, created_at);
