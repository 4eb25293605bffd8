//! The seeds after the migrations.

use std::time::Instant;

use tokio::task::JoinHandle;

use crate::migrate::{
    record,
    report::Failure,
    seed::{Hashes, Pending},
    session, units,
};

use super::{Event, Runner, ladder::Ladder, message::Message, send::Undelivered, waiting::Waiting};

impl Runner<'_, '_> {
    /// The seeds that are new or changed, each in its transaction with its record.
    pub(super) async fn seeds(
        &mut self,
        pending: &[Pending],
        hashing: JoinHandle<Result<Hashes, Failure>>,
    ) -> Result<(), Failure> {
        let hashes = hashing.await.map_err(|error| Failure::Usage(error.to_string()))??;
        for seed in pending {
            self.pause_point()?;
            let started = Instant::now();
            let seeded = self.seed(seed, &hashes).await;
            seeded.map_err(|undelivered| match undelivered.into_failure() {
                Failure::Statement(failure) => Failure::Seed(failure),
                other => other,
            })?;
            self.report.seeds += 1;
            (self.tell)(Event::Seeded {
                profile: &seed.profile,
                file: &seed.script.file,
                took: started.elapsed(),
            });
        }
        self.tell_unchanged(pending.len());
        Ok(())
    }

    /// One of them, which waits for its locks as a migration does.
    async fn seed(&mut self, seed: &Pending, hashes: &Hashes) -> Result<(), Undelivered> {
        let file = format!("{}/{}", seed.profile, seed.script.file);
        let sql: &str = &seed.script.sql;
        let needs = units::needs(sql).map_err(|problem| Failure::Usage(format!("{file}:{problem}")))?;
        let wanted = self.beforehand(sql, &needs).await?;
        let tail = record::commit_seed(&seed.profile, &seed.script.file, &seed.script.checksum, self.id());
        let ladder = Ladder::new(self.request.lock_timeout, needs.blocks(), needs.unlisted);
        let mut waiting = Waiting::new(&file, None, ladder);
        loop {
            self.open_seed(seed, hashes).await?;
            let (locks, count) = waiting.ladder.lead(&wanted);
            let message = Message::inside(&file, sql, (0, sql.len()), (locks.as_str(), count), &tail);
            let Err(refused) = self.deliver(&message, None).await else {
                return Ok(());
            };
            self.again(&mut waiting, &wanted, refused).await?;
        }
    }

    /// Opens the seed's transaction with the settings it reads. They are bound, not written into the text: a text is
    /// logged whole when it fails, and even a hash has no business in a log.
    async fn open_seed(&mut self, seed: &Pending, hashes: &Hashes) -> Result<(), Failure> {
        session::ask(self.conn, "BEGIN").await?;
        for (setting, hash) in hashes.iter().filter(|(setting, _)| seed.wants(setting)) {
            sqlx::query("SELECT pg_catalog.set_config($1, $2, true)")
                .bind(setting)
                .bind(hash)
                .persistent(false)
                .execute(&mut *self.conn)
                .await?;
        }
        Ok(())
    }

    pub(super) fn tell_unchanged(&mut self, pending: usize) {
        let all: usize = self.request.seeds.iter().map(|profile| profile.files.len()).sum();
        if all > pending {
            (self.tell)(Event::SeedsUnchanged(all - pending));
        }
    }
}
