-- 0005 machine learning: the table of trained models; training samples learn whether they were used, and are tied to their task.
--
-- Why it alters ml_training_data: the source creates it a second time with a column "target". The table of 0001 is kept; its column
-- labels holds the target.
--
-- Locks: adding a column with a constant default rewrites nothing. The foreign key comes last, so tasks is locked against writes only
-- for the check of the rows; NOT VALID then VALIDATE as in 0003. Samples of a task that is gone stop it; find them with
--   SELECT data_id, task_id FROM ml_training_data d WHERE task_id IS NOT NULL AND NOT EXISTS (SELECT FROM tasks t WHERE t.task_id = d.task_id);

CREATE TABLE ml_models (
    id                  serial        NOT NULL,
    model_id            varchar(255)  NOT NULL,
    model_name          varchar(255)  NOT NULL,
    model_type          varchar(100)  NOT NULL,
    version             varchar(50)   NOT NULL,
    status              varchar(50)   NOT NULL DEFAULT 'active',
    accuracy            numeric(5,4),
    r2_score            numeric(5,4),
    mean_absolute_error numeric(10,4),
    training_samples    integer,
    feature_count       integer,
    hyperparameters     jsonb,
    feature_importance  jsonb,
    trained_at          timestamptz,
    created_at          timestamptz   NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT ml_models_pkey PRIMARY KEY (id),
    CONSTRAINT ml_models_model_id_key UNIQUE (model_id)
);
COMMENT ON TABLE ml_models IS 'Trained prediction models with their quality figures.';

CREATE INDEX ix_ml_models_status ON ml_models (status);

ALTER TABLE ml_training_data ADD COLUMN used_in_training boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN ml_training_data.used_in_training IS 'True once a model was trained with the sample.';
CREATE INDEX ix_ml_training_data_used ON ml_training_data (used_in_training);

ALTER TABLE ml_training_data ADD CONSTRAINT ml_training_data_task_id_fkey
    FOREIGN KEY (task_id) REFERENCES tasks (task_id) ON DELETE SET NULL NOT VALID;
ALTER TABLE ml_training_data VALIDATE CONSTRAINT ml_training_data_task_id_fkey;
