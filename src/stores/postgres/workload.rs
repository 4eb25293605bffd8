//! The PostgreSQL server that the operator runs: image contract, configuration, parameters. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    api::{common::ManagedTls, names::ExtensionName, postgres::ManagedPostgres},
    stores::workload::{CERTIFICATES, Config, Family, Image, Reload, SecretFile, Workload, digest},
};

pub const PORT: u16 = 5432;
/// The superuser of a managed server; its password never leaves the operator and the Secret.
pub const ADMIN: &str = "postgres";
/// Key of the admin Secret that the server reads on its first start.
pub const PASSWORD_KEY: &str = "PGPASSWORD";

/// Parameters that the operator owns, or that could run commands or open the server: refused in `spec.postgres.managed.parameters`.
const DENIED: [&str; 37] = [
    "listen_addresses",
    "port",
    "unix_socket_directories",
    "unix_socket_group",
    "unix_socket_permissions",
    "data_directory",
    "config_file",
    "hba_file",
    "ident_file",
    "external_pid_file",
    "archive_command",
    "archive_library",
    "archive_cleanup_command",
    "restore_command",
    "recovery_end_command",
    "ssl_passphrase_command",
    "shared_preload_libraries",
    "session_preload_libraries",
    "local_preload_libraries",
    "dynamic_library_path",
    "extension_control_path",
    "jit_provider",
    "password_encryption",
    "include",
    "include_dir",
    "include_if_exists",
    "krb_server_keyfile",
    "log_directory",
    "hot_standby",
    "synchronous_standby_names",
    "synchronized_standby_slots",
    // Not for files: a server that finds one of these in its file does not start.
    "role",
    "session_authorization",
    "seed",
    "transaction_isolation",
    "transaction_read_only",
    "transaction_deferrable",
];
/// The same by how their names begin: certificates, and what concerns standbys and recoveries, which a single server has not.
const DENIED_BEGINNINGS: [&str; 5] = ["ssl_", "recovery_", "primary_", "amas.", "sync_replication"];

/// PostgreSQL's own limit of names.
const LONGEST_NAME: usize = 63;

/// What is wrong with a parameter of the specification, if anything.
pub fn refuse_parameter(name: &str, value: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '.';
    if name.is_empty()
        || name.len() > LONGEST_NAME
        || !name.chars().all(allowed)
        || !name.starts_with(|c: char| c.is_ascii_lowercase())
    {
        return Some(format!(
            "{name:?} is not a parameter name: use at most {LONGEST_NAME} lower-case letters, digits, underscores and dots"
        ));
    }
    if DENIED.contains(&name) || name == "ssl" || DENIED_BEGINNINGS.iter().any(|begin| name.starts_with(begin)) {
        return Some(format!(
            "{name} is the operator's own; take it out of spec.postgres.managed.parameters"
        ));
    }
    value
        .chars()
        .any(char::is_control)
        .then(|| format!("the value of {name} contains a line break or control character"))
}

/// The libraries that must be loaded at start for the extensions asked for.
fn preloaded(extensions: &[ExtensionName]) -> BTreeSet<&'static str> {
    const NEEDED: [(&str, &str); 2] = [
        ("pg_stat_statements", "pg_stat_statements"),
        ("auto_explain", "auto_explain"),
    ];
    let wanted = |name: &str| extensions.iter().any(|extension| extension.as_str() == name);
    NEEDED
        .iter()
        .filter(|(extension, _)| wanted(extension))
        .map(|(_, library)| *library)
        .collect()
}

/// The parameter that names the file it is in, so that the server tells which it has loaded.
pub const MARK: &str = "amas.config";

/// The whole postgresql.conf with its mark.
pub fn marked(configuration: &str) -> (String, String) {
    let mark = digest(configuration);
    (format!("{configuration}{MARK} = '{mark}'\n"), mark)
}

/// The parameters of postgresql.conf: our base, then what is asked for.
pub fn configuration(spec: &ManagedPostgres, extensions: &[ExtensionName]) -> String {
    let quote = |value: &str| format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"));
    let base = [
        ("listen_addresses", "*"),
        ("unix_socket_directories", "/var/run/postgresql"),
        ("password_encryption", "scram-sha-256"),
        ("timezone", "UTC"),
        ("log_timezone", "UTC"),
        ("datestyle", "iso, mdy"),
        ("default_text_search_config", "pg_catalog.english"),
        ("dynamic_shared_memory_type", "posix"),
        ("log_destination", "stderr"),
    ];
    let mut settings: BTreeMap<&str, String> = base.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    let libraries = preloaded(extensions).into_iter().collect::<Vec<_>>().join(",");
    if !libraries.is_empty() {
        settings.insert("shared_preload_libraries", libraries);
    }
    settings.extend(
        spec.parameters
            .iter()
            .map(|(name, value)| (name.as_str(), value.clone())),
    );
    settings
        .iter()
        .map(|(name, value)| format!("{name} = {}\n", quote(value)))
        .collect()
}

/// `max_connections` of the server as configured.
pub fn max_connections(spec: &ManagedPostgres) -> i64 {
    spec.parameters
        .get("max_connections")
        .and_then(|value| value.parse().ok())
        .unwrap_or(100)
}

/// What an encrypted server is told beside the rest. Where encryption is required, nobody else gets in but over the pod's own socket.
pub fn encrypt(workload: &mut Workload, configuration: &str, tls: &ManagedTls) {
    let mut more =
        format!("ssl = 'on'\nssl_cert_file = '{CERTIFICATES}/tls.crt'\nssl_key_file = '{CERTIFICATES}/tls.key'\n");
    let mut files = BTreeMap::new();
    if tls.required {
        more += "hba_file = '/etc/postgresql/pg_hba.conf'\n";
        files.insert(
            "pg_hba.conf",
            "local all all trust\nhostssl all all all scram-sha-256\n".to_owned(),
        );
    }
    let (file, mark) = marked(&format!("{configuration}{more}"));
    files.insert("postgresql.conf", file);
    workload.config = Config::Files {
        folder: "/etc/postgresql",
        files,
    };
    workload.reload = Reload::AsTheServerSays(mark);
    workload.encrypted = true;
}

/// What the server needs.
pub fn workload(family: &Family, spec: &ManagedPostgres, extensions: &[ExtensionName], image: Image) -> Workload {
    let (file, mark) = marked(&configuration(spec, extensions));
    Workload {
        component: "postgres",
        application: "postgresql",
        version: spec.version.clone(),
        image: image.name,
        image_source: image.source,
        user: 999,
        command: ["postgres", "-c", "config_file=/etc/postgresql/postgresql.conf"]
            .map(Into::into)
            .into(),
        environment: vec![
            ("PGDATA", "/var/lib/postgresql/data/pgdata".into()),
            ("POSTGRES_USER", ADMIN.into()),
            ("POSTGRES_PASSWORD_FILE", format!("/run/amas/{PASSWORD_KEY}")),
            (
                "POSTGRES_INITDB_ARGS",
                "--encoding=UTF8 --locale=C.UTF-8 --data-checksums".into(),
            ),
        ],
        reload: Reload::AsTheServerSays(mark),
        config: Config::Files {
            folder: "/etc/postgresql",
            files: [("postgresql.conf", file)].into(),
        },
        secret: SecretFile {
            secret: family.child_name("postgres-admin"),
            key: PASSWORD_KEY,
            folder: "/run/amas",
        },
        encrypted: false,
        certificate: None,
        prepare: None,
        data_folder: "/var/lib/postgresql/data",
        scratch: vec!["/tmp", "/var/run/postgresql"],
        read_only_root: true,
        ports: vec![("postgres", PORT)],
        grace_seconds: 60,
        storage: spec.storage.clone(),
        resources: spec.resources.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(parameters: serde_json::Value) -> ManagedPostgres {
        serde_json::from_value(json!({"storage": {"size": "1Gi"}, "parameters": parameters})).unwrap()
    }

    #[test]
    fn parameters_are_quoted_and_override_our_base() {
        let text = configuration(
            &spec(json!({"max_connections": "200", "timezone": "Europe/Paris", "search_path": "a'b\\"})),
            &[],
        );
        assert!(text.contains("max_connections = '200'\n") && text.contains("timezone = 'Europe/Paris'\n"));
        assert!(text.contains("search_path = 'a''b\\\\'\n"), "{text}");
    }

    #[test]
    fn libraries_follow_from_extensions() {
        let extension = ExtensionName::parse("pg_stat_statements").unwrap();
        assert!(
            configuration(&spec(json!({})), &[extension]).contains("shared_preload_libraries = 'pg_stat_statements'\n")
        );
        assert!(!configuration(&spec(json!({})), &[]).contains("shared_preload_libraries"));
    }

    #[test]
    fn dangerous_parameters_are_refused() {
        for name in [
            "listen_addresses",
            "archive_command",
            "ssl",
            "ssl_key_file",
            "Max_Connections",
            "a b",
            "",
            "x\ny",
        ] {
            assert!(refuse_parameter(name, "1").is_some(), "{name:?}");
        }
        assert!(refuse_parameter("work_mem", "64MB").is_none());
        assert!(refuse_parameter("work_mem", "64MB'\nlisten_addresses = '*").is_some());
    }
}
