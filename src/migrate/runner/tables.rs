//! The runner's own tables: created when absent, and told what sqlx did before.

use sqlx::Row;

use crate::migrate::{history::Applied, plan::Down, record, report::Failure, session};

use super::Runner;

impl Runner<'_, '_> {
    /// Creates the tables if they are absent. True if they were.
    pub(super) async fn ensure_tables(&mut self) -> Result<bool, Failure> {
        let schema = &self.request.options.schema;
        let sql = format!(
            "SELECT pg_catalog.obj_description(pg_catalog.to_regnamespace('amas_migrate'), 'pg_namespace'), \
             pg_catalog.to_regclass('\"{schema}\"._sqlx_migrations') IS NOT NULL"
        );
        let rows = session::ask(self.conn, &sql).await?;
        let (layout, sqlx): (Option<String>, bool) = match rows.first() {
            Some(row) => (row.try_get(0)?, row.try_get(1)?),
            None => (None, false),
        };
        match layout.as_deref() {
            Some(record::LAYOUT) if sqlx => return Ok(false),
            Some(known) if known == record::LAYOUT || record::OLDER.contains(&known) => {}
            None => {}
            Some(other) => {
                return Err(Failure::Refused(format!(
                    "schema amas_migrate is marked {other:?}, this release knows {:?}: use the newer release",
                    record::LAYOUT
                )));
            }
        }
        if let Err(failed) = session::send(self.conn, &record::bootstrap(schema)).await {
            self.rollback().await;
            return Err(failed.error.into());
        }
        Ok(true)
    }

    /// Rows that sqlx wrote become known to our history, with the way back their files have.
    pub(super) async fn adopt(&mut self, applied: &[Applied]) -> Result<(), Failure> {
        let known = "SELECT DISTINCT version FROM amas_migrate.history";
        let rows = session::ask(self.conn, known).await?;
        let known: std::collections::HashSet<i64> = rows.iter().flat_map(|row| row.try_get(0)).collect();
        let stamps: Vec<String> = applied
            .iter()
            .filter(|applied| applied.success && !known.contains(&applied.version))
            .map(|applied| self.stamp(applied))
            .collect();
        if stamps.is_empty() {
            return Ok(());
        }
        session::ask(self.conn, &stamps.join(";")).await?;
        Ok(())
    }

    fn stamp(&self, applied: &Applied) -> String {
        let file = self
            .request
            .source
            .get(applied.version)
            .filter(|m| m.up.checksum == applied.checksum);
        let down = file.and_then(|m| m.down.as_ref());
        let down = down.map(|d| Down {
            sql: d.sql.clone(),
            checksum: d.checksum.clone(),
        });
        record::stamp(applied.version, &applied.description, &applied.checksum, down.as_ref())
    }
}
