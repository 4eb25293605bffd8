-- 0005 down: what 0005 added, in reverse order. The samples stay (their mark used_in_training is lost), the models go.

ALTER TABLE ml_training_data DROP CONSTRAINT ml_training_data_task_id_fkey;
DROP INDEX ix_ml_training_data_used;
ALTER TABLE ml_training_data DROP COLUMN used_in_training;

DROP INDEX ix_ml_models_status;
DROP TABLE ml_models;
