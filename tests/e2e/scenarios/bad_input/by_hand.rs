//! Verbs of `amas-operator migrate` for which the object has no field: the Jobs of the documentation, with the names of one object.

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::api::{Api, DeleteParams, DynamicObject};

use super::room::Room;
use crate::{
    cluster::{
        clients::{self, Values, role_secret},
        objects::{self, api},
        operator,
        platform::PATIENCE,
        wait::Watch,
    },
    harness::{About, Result},
};

const VERB: &str = include_str!("../../../../manifests/examples/migration-job.yaml");
const RESTORE: &str = include_str!("../../../../manifests/examples/restore-tables-job.yaml");

/// An AmasDatabase whose PostgreSQL has the database `app`, and the ConfigMap with its migrations.
pub struct ByHand<'a> {
    pub room: &'a Room<'a>,
    pub database: &'a str,
    pub files: &'a str,
}

impl ByHand<'_> {
    /// Records the versions up to this one as applied.
    pub async fn stamp(&self, version: u32) -> Result {
        let text = VERB
            .replace("amas-redo", "stamp")
            .replace("migrate, redo,", &format!("migrate, stamp, --to, '{version}',"));
        let done = self.job("stamp", text).await?;
        let history = self.value("SELECT count(*)::text FROM _sqlx_migrations").await?;
        let seen = format!("{done}; {history} in the history");
        let wanted = format!("done; {version} in the history");
        self.figure("migrate stamp as a Job of one's own", seen, &wanted);
        Ok(())
    }

    /// Takes the newest version back, which makes this table, and applies it again; the records name the Job.
    pub async fn redo(&self, table: &str) -> Result {
        let identity = format!("SELECT to_regclass('{table}')::oid::text");
        let before = self.value(&identity).await?;
        let done = self.job("amas-redo", VERB.to_owned()).await?;
        let after = self.value(&identity).await?;
        let other = if before == after { "the same" } else { "another" };
        let runs = "SELECT count(*)::text FROM amas_migrate.runs WHERE attempt = 'amas-redo'";
        let seen = format!(
            "{done}; table {table} is {other}; {} runs of this name",
            self.value(runs).await?
        );
        let wanted = format!("done; table {table} is another; 2 runs of this name");
        self.figure("migrate redo as a Job of one's own", seen, &wanted);
        Ok(())
    }

    /// Puts a backup back, in which this table has so many rows.
    pub async fn restore_tables(&self, backup: u32, table: &str, rows: u32) -> Result {
        let server = format!("{}-postgres-0", self.database);
        let pods: Api<Pod> = Api::namespaced(self.room.ctx.client.clone(), &self.room.namespace);
        let text = RESTORE
            .replace("POSTGRES_IMAGE", &image(&pods.get(&server).await?)?)
            .replace("[\"1\"", &format!("[\"{backup}\""))
            .replace("amas-backups", &format!("{}-backups", self.database));
        let done = self.job("amas-restore-tables", text).await?;
        let back = self.value(&format!("SELECT count(*)::text FROM {table}")).await?;
        let seen = format!("{done}; table {table} has {back} rows");
        self.figure(
            "migrate restore-tables as a Job of one's own",
            seen,
            &format!("done; table {table} has {rows} rows"),
        );
        Ok(())
    }

    /// Statements, as the owner.
    pub async fn execute(&self, sql: &str) -> Result {
        clients::sql(&mut self.owner().await?, sql).await
    }

    /// The first column of the first row, as the owner sees it.
    pub async fn value(&self, sql: &str) -> Result<String> {
        clients::value(&mut self.owner().await?, sql).await
    }

    async fn owner(&self) -> Result<sqlx::PgConnection> {
        let secret = self.secret();
        let secret = Values::read(&self.room.ctx.client, &self.room.namespace, &secret).await?;
        clients::postgres(secret.get("DATABASE_URL")?).await
    }

    fn secret(&self) -> String {
        role_secret(self.database, "app_owner")
    }

    fn figure(&self, what: &str, seen: String, wanted: &str) {
        let met = seen == wanted;
        self.room.ctx.figure(what, seen, wanted, met);
    }

    /// Runs one to its end, and takes it away: `done`, or what became of it.
    async fn job(&self, name: &str, text: String) -> Result<&'static str> {
        let (client, namespace) = (&self.room.ctx.client, &self.room.namespace);
        let text = text
            .replace("OPERATOR_IMAGE", &image(&operator::pod(self.room.ctx).await?)?)
            .replace("amas-role-amas-owner", &self.secret())
            .replace("amas-migrations", self.files)
            .replace(
                "amas.dev/database: amas",
                &format!("amas.dev/database: {}", self.database),
            );
        objects::apply(client, namespace, &objects::parse(&text)?).await?;
        let ended = |job: Option<&DynamicObject>| {
            job.is_some_and(|job| job.data["status"]["succeeded"] == 1 || job.data["status"]["failed"] == 1)
        };
        let jobs = api::<Job>(client, namespace);
        let mut watch = Watch::open(&jobs, name).await?;
        watch
            .until(PATIENCE, &format!("the end of the Job {name}"), ended)
            .await?;
        let succeeded = watch.into_object()?.data["status"]["succeeded"] == 1;
        if succeeded {
            jobs.delete(name, &DeleteParams::background()).await?;
        }
        Ok(if succeeded { "done" } else { "FAILED" })
    }
}

/// That of a pod's first container.
fn image(pod: &Pod) -> Result<String> {
    let container = pod.spec.iter().flat_map(|spec| &spec.containers).next();
    container
        .and_then(|container| container.image.clone())
        .about("a pod without an image")
}
