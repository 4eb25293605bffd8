//! Settings of a managed server: which may be asked for, and how they reach its image. Pure.

/// How the names begin of what may be asked for. Everything else is about addresses, folders, logins, certificates, clusters, or what
/// the Java machine runs.
const ALLOWED_BEGINNINGS: [&str; 8] = [
    "db.",
    "dbms.memory.",
    "dbms.cypher.",
    "server.memory.",
    "server.db.",
    "server.threads.",
    "server.bolt.thread_pool_",
    "browser.",
];

const LONGEST_NAME: usize = 128;

/// What is wrong with a setting of the specification, if anything.
pub fn refuse(name: &str, value: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '.';
    let words = name
        .split('.')
        .all(|word| word.starts_with(|c: char| c.is_ascii_lowercase()));
    if name.len() > LONGEST_NAME || !words || !name.chars().all(allowed) || name.contains("__") {
        return Some(format!(
            "{name:?} is not the name of a setting: use at most {LONGEST_NAME} lower-case letters, digits, underscores and dots"
        ));
    }
    if !ALLOWED_BEGINNINGS.iter().any(|begin| name.starts_with(begin)) {
        return Some(format!(
            "{name} is the operator's own; take it out of spec.neo4j.managed.parameters, where names begin with {}",
            ALLOWED_BEGINNINGS.join(", ")
        ));
    }
    if value.chars().any(char::is_control) {
        return Some(format!(
            "the value of {name} contains a line break or control character"
        ));
    }
    // The server reads its file as Latin-1.
    if !value.is_ascii() {
        return Some(format!(
            "the value of {name} has characters that are not ASCII, which the server's file cannot hold"
        ));
    }
    // At the end of a line it would take the next one in; before other characters it stands for something else. A command in $() would run.
    (value.contains('\\') || value.contains("$(")).then(|| {
        format!("the value of {name} contains a backslash or $(, which the server's file gives another meaning")
    })
}

/// The variable of the image that stands for a setting: a dot is written `_`, and `_` twice.
pub fn variable(name: &str) -> String {
    format!("NEO4J_{}", name.replace('_', "__").replace('.', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_operator_owns_is_refused_and_nothing_can_become_a_second_line() {
        for name in [
            "server.default_listen_address",
            "server.bolt.listen_address",
            "server.directories.data",
            "server.config.strict_validation.enabled",
            "server.jvm.additional",
            "dbms.security.auth_enabled",
            "dbms.ssl.policy.bolt.enabled",
            "initial.dbms.default_database",
            "",
            "db",
            "db.",
            "db..a",
            "db.A",
            "db.a b",
            "db.a=1\ndbms.security.auth_enabled",
            "db.a__b",
            "db.é",
        ] {
            assert!(refuse(name, "1").is_some(), "{name:?}");
        }
        for value in [
            "1\ndbms.security.auth_enabled=false",
            "1\\",
            "a\\u000ab",
            "$(id)",
            "\r",
            "Zoë",
        ] {
            assert!(refuse("db.transaction.timeout", value).is_some(), "{value:?}");
        }
        for (name, value) in [("db.transaction.timeout", "30s"), ("server.memory.heap.max_size", "1g")] {
            assert_eq!(refuse(name, value), None);
        }
    }

    #[test]
    fn names_are_written_as_the_image_reads_them() {
        assert_eq!(
            variable("server.memory.heap.max_size"),
            "NEO4J_server_memory_heap_max__size"
        );
    }
}
