//! How far a statement outside of a transaction came, by what the catalog shows, and the removal of what it left behind:
//! an index that is INVALID serves no query, slows every write, and keeps its name from the next attempt.

use std::time::Duration;

use sqlx::Row;

use crate::migrate::{
    analysis::{Outside, TableName},
    progress,
    record::literal,
    session,
};

use super::Runner;

/// What there is of a statement that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has to run.
    Open,
    /// It did all it should.
    Through,
    /// It has to be ended by another statement.
    Finish(String),
}

impl Standing {
    /// What to send instead of the file's own statement.
    pub fn instead(&self) -> Option<String> {
        match self {
            Standing::Finish(sql) => Some(sql.clone()),
            _ => None,
        }
    }
}

/// One index of the table that the statement is about.
struct Index {
    /// Quoted, with its schema.
    name: String,
    bare: String,
    valid: bool,
    /// It was there before the statement began, and whether it was INVALID then.
    before: bool,
    broken_before: bool,
}

impl Runner<'_, '_> {
    /// How far the begun statement of this version came. INVALID indexes that it has left are dropped, which waits for
    /// those who use the table, but not for longer than this.
    pub(super) async fn standing(
        &mut self,
        version: i64,
        outside: Option<&Outside>,
        patience: Duration,
    ) -> Result<Standing, sqlx::Error> {
        let Some(outside) = outside else {
            return Ok(Standing::Open);
        };
        let through = match outside {
            Outside::BuildsIndex { .. } | Outside::RebuildsIndex(_) | Outside::RebuildsTable(_) => {
                self.indexes_through(version, outside, patience).await?
            }
            Outside::DropsIndex(index) => self.says(&format!("{} IS NULL", class(index))).await?,
            Outside::Detaches { parent, partition } => return self.detached(parent, partition).await,
            Outside::MakesDatabase(name) => self.says(&format!("EXISTS ({})", database(name))).await?,
            Outside::DropsDatabase(name) => self.says(&format!("NOT EXISTS ({})", database(name))).await?,
        };
        Ok(if through { Standing::Through } else { Standing::Open })
    }

    /// What a refused statement has left, or that nothing is left of it: then it counts as not begun. It is never
    /// through, whatever the catalog shows, since it may have named what is not there.
    pub(super) async fn left_by_refused(
        &mut self,
        version: i64,
        outside: Option<&Outside>,
        patience: Duration,
    ) -> Result<Standing, sqlx::Error> {
        let standing = self.standing(version, outside, patience).await?;
        if let Standing::Finish(_) = standing {
            return Ok(standing);
        }
        session::ask(self.conn, &progress::refused(version, outside)).await?;
        Ok(Standing::Open)
    }

    async fn indexes_through(
        &mut self,
        version: i64,
        outside: &Outside,
        patience: Duration,
    ) -> Result<bool, sqlx::Error> {
        let indexes = self.indexes(version, outside).await?;
        let left: Vec<&Index> = indexes
            .iter()
            .filter(|index| !index.valid && !index.broken_before)
            .collect();
        for index in &left {
            self.drop_index(&index.name, patience).await?;
        }
        if !left.is_empty() {
            return Ok(false);
        }
        let about = indexes.iter().filter(|index| match outside {
            Outside::BuildsIndex { index: Some(name), .. } => index.bare == *name,
            Outside::RebuildsIndex(name) => index.bare == name.name,
            _ => true,
        });
        // a rebuilt index is a new one under the old name
        let new: Vec<bool> = about.map(|index| index.valid && !index.before).collect();
        Ok(match outside {
            Outside::RebuildsTable(_) => !new.is_empty() && new.iter().all(|new| *new),
            _ => new.contains(&true),
        })
    }

    /// An INVALID index of the name that is about to be built, whoever left it.
    pub(super) async fn sweep_before(&mut self, outside: Option<&Outside>) -> Result<(), sqlx::Error> {
        let Some(outside @ Outside::BuildsIndex { index: Some(name), .. }) = outside else {
            return Ok(());
        };
        let left = self.indexes(0, outside).await?;
        for index in left.iter().filter(|index| index.bare == *name && !index.valid) {
            self.drop_index(&index.name, self.request.lock_timeout).await?;
        }
        Ok(())
    }

    /// The indexes of the statement's table. INVALID ones are left out while another session (no autovacuum) may be
    /// building one: it holds the lock that this takes.
    async fn indexes(&mut self, version: i64, outside: &Outside) -> Result<Vec<Index>, sqlx::Error> {
        let Some(table) = progress::table(Some(outside)) else {
            return Ok(Vec::new());
        };
        let sql = format!(
            "SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname), c.relname::text, i.indisvalid, \
             COALESCE(i.indexrelid = ANY (p.indexes), false), COALESCE(i.indexrelid = ANY (p.broken), false) \
             FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             LEFT JOIN amas_migrate.progress p ON p.version = {version} WHERE i.indrelid = {table} AND (i.indisvalid OR NOT EXISTS \
             (SELECT FROM pg_catalog.pg_locks l WHERE l.locktype = 'relation' AND l.relation = i.indrelid AND l.granted \
              AND l.mode = 'ShareUpdateExclusiveLock' AND l.pid <> pg_catalog.pg_backend_pid() \
              AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()) \
              AND EXISTS (SELECT FROM pg_catalog.pg_stat_activity a WHERE a.pid = l.pid AND a.usesysid IS NOT NULL)))"
        );
        let rows = session::ask(self.conn, &sql).await?;
        let index = |row: &sqlx::postgres::PgRow| {
            Ok(Index {
                name: row.try_get(0)?,
                bare: row.try_get(1)?,
                valid: row.try_get(2)?,
                before: row.try_get(3)?,
                broken_before: row.try_get(4)?,
            })
        };
        rows.iter().map(index).collect()
    }

    async fn drop_index(&mut self, name: &str, patience: Duration) -> Result<(), sqlx::Error> {
        // the file may have set one
        let rows = session::ask(self.conn, "SELECT pg_catalog.current_setting('lock_timeout')").await?;
        let before: String = rows.first().map_or(Ok("0".to_owned()), |row| row.try_get(0))?;
        let timeout = |time: &str| format!("SET lock_timeout = {}", literal(time));
        let ours = format!("{}ms", patience.as_millis().max(1));
        session::ask(self.conn, &timeout(&ours)).await?;
        let dropped = session::ask(self.conn, &format!("DROP INDEX CONCURRENTLY IF EXISTS {name}")).await;
        session::ask(self.conn, &timeout(&before)).await?;
        dropped.map(drop)
    }

    async fn detached(&mut self, parent: &TableName, partition: &TableName) -> Result<Standing, sqlx::Error> {
        let (below, above) = (class(partition), class(parent));
        let sql = format!(
            "SELECT i.inhdetachpending FROM pg_catalog.pg_inherits i WHERE i.inhrelid = {below} AND i.inhparent = {above}"
        );
        let rows = session::ask(self.conn, &sql).await?;
        Ok(match rows.first().map(|row| row.try_get(0)).transpose()? {
            None => Standing::Through,
            Some(false) => Standing::Open,
            Some(true) => Standing::Finish(format!("ALTER TABLE {parent} DETACH PARTITION {partition} FINALIZE")),
        })
    }

    async fn says(&mut self, condition: &str) -> Result<bool, sqlx::Error> {
        let rows = session::ask(self.conn, &format!("SELECT {condition}")).await?;
        rows.first().map_or(Ok(false), |row| row.try_get(0))
    }
}

fn class(name: &TableName) -> String {
    format!("pg_catalog.to_regclass({})", literal(&name.to_string()))
}

fn database(name: &str) -> String {
    format!(
        "SELECT FROM pg_catalog.pg_database d WHERE d.datname = {}",
        literal(name)
    )
}
