//! Parameters of a managed server: which may be asked for, how they stand in its file, and whether a value that it shows is the one asked
//! for. Pure.

use std::collections::BTreeMap;

/// What the server is told beside the operator's own lines.
pub type Parameters = BTreeMap<String, String>;

/// Parameters that belong to the operator, to `persistence` or to CachePolicies, or that could open the server or run code in it.
const DENIED: [&str; 34] = [
    "port",
    "bind",
    "bind-source-addr",
    "protected-mode",
    "unixsocket",
    "unixsocketperm",
    "unixsocketgroup",
    "requirepass",
    "aclfile",
    "acl-pubsub-default",
    "user",
    "masterauth",
    "masteruser",
    "primaryauth",
    "primaryuser",
    "replicaof",
    "slaveof",
    "dir",
    "dbfilename",
    "appendonly",
    "appendfilename",
    "appenddirname",
    "appendfsync",
    "save",
    "maxmemory",
    "maxmemory-policy",
    "include",
    "loadmodule",
    "module",
    "rename-command",
    "daemonize",
    "supervised",
    "pidfile",
    "logfile",
];
/// The same by how their names begin.
const DENIED_BEGINNINGS: [&str; 7] = [
    "tls-",
    "cluster-",
    "enable-",
    "syslog-",
    "sentinel",
    "rdma-",
    "loadmodule",
];

/// What the server reads only when it starts, among those that may be asked for.
const AT_START: [&str; 17] = [
    "io-threads",
    "io-threads-do-reads",
    "databases",
    "tcp-backlog",
    "rdbchecksum",
    "disable-thp",
    "socket-mark-id",
    "set-proc-title",
    "always-show-logo",
    "server_cpulist",
    "bio_cpulist",
    "aof_rewrite_cpulist",
    "bgsave_cpulist",
    "server-cpulist",
    "bio-cpulist",
    "aof-rewrite-cpulist",
    "bgsave-cpulist",
];

const LONGEST_NAME: usize = 63;

/// What is wrong with a parameter of the specification, if anything.
pub fn refuse(name: &str, value: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
    if name.len() > LONGEST_NAME || !begins || !name.chars().all(allowed) {
        return Some(format!(
            "{name:?} is not a parameter name: use at most {LONGEST_NAME} lower-case letters, digits, dashes and underscores"
        ));
    }
    if matches!(name, "maxmemory" | "maxmemory-policy") {
        return Some(format!(
            "{name} belongs to CachePolicies; take it out of spec.redis.managed.parameters and set eviction in one"
        ));
    }
    if DENIED.contains(&name) || DENIED_BEGINNINGS.iter().any(|begin| name.starts_with(begin)) {
        return Some(format!(
            "{name} is the operator's own; take it out of spec.redis.managed.parameters"
        ));
    }
    value
        .chars()
        .any(char::is_control)
        .then(|| format!("the value of {name} contains a line break or control character"))
}

/// Whether only a start of the server takes it up.
pub fn is_read_at_start(name: &str) -> bool {
    AT_START.contains(&name)
}

/// The lines of the file. A value is one quoted word; the server takes lists apart by itself.
pub fn lines<'a>(parameters: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    let quote = |value: &str| value.trim().replace('\\', "\\\\").replace('"', "\\\"");
    parameters
        .into_iter()
        .map(|(name, value)| format!("{name} \"{}\"\n", quote(value)))
        .collect()
}

/// Whether what the server shows is what was asked for, as far as that can be told from the two texts.
pub fn agree(wanted: &str, shown: &str) -> bool {
    let plain = |text: &str| {
        text.split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .to_ascii_lowercase()
    };
    let (wanted, shown) = (plain(wanted), plain(shown));
    wanted == shown || amount(&wanted).is_some_and(|amount| Ok(amount) == shown.parse())
}

/// A number with one of the server's units.
fn amount(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 7] = [
        ("kb", 1 << 10),
        ("mb", 1 << 20),
        ("gb", 1 << 30),
        ("k", 1_000),
        ("m", 1_000_000),
        ("g", 1_000_000_000),
        ("b", 1),
    ];
    let unit = UNITS.iter().find(|(unit, _)| text.ends_with(unit));
    let (number, times) = unit.map_or((text, 1), |(unit, times)| (&text[..text.len() - unit.len()], *times));
    number.parse::<u64>().ok()?.checked_mul(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_operator_owns_is_refused_and_nothing_can_become_a_second_line() {
        for name in [
            "requirepass",
            "aclfile",
            "user",
            "port",
            "bind",
            "tls-port",
            "dir",
            "dbfilename",
            "appendonly",
            "maxmemory",
            "maxmemory-policy",
            "rename-command",
            "include",
            "loadmodule",
            "loadmodule-something",
            "slaveof",
            "cluster-enabled",
            "enable-debug-command",
            "",
            "Maxclients",
            "max clients",
            "hz\nrequirepass",
            "hz\"",
            "#hz",
            "é",
        ] {
            assert!(refuse(name, "1").is_some(), "{name:?}");
        }
        assert!(refuse(&"a".repeat(300), "1").is_some());
        for value in ["1\nrequirepass x", "1\r", "\u{0}", "\u{85}"] {
            assert!(refuse("hz", value).is_some(), "{value:?}");
        }
        for (name, value) in [
            ("hz", "20"),
            ("client-output-buffer-limit", "normal 0 0 0"),
            ("server_cpulist", "0-7:2"),
        ] {
            assert_eq!(refuse(name, value), None);
        }
    }

    #[test]
    fn values_are_quoted() {
        let all = Parameters::from([
            ("hz".into(), " 20 ".into()),
            ("proc-title-template".into(), "a \"b\" \\ 'c' {title} # é".into()),
        ]);
        let expected = "hz \"20\"\nproc-title-template \"a \\\"b\\\" \\\\ 'c' {title} # é\"\n";
        assert_eq!(lines(&all), expected);
    }

    #[test]
    fn the_server_writes_some_values_in_its_own_way() {
        for (wanted, shown) in [
            ("2mb", "2097152"),
            ("1K", "1000"),
            ("YES", "yes"),
            ("20", "20"),
            (" a  b", "a b"),
            ("3b", "3"),
        ] {
            assert!(agree(wanted, shown), "{wanted} {shown}");
        }
        for (wanted, shown) in [("2mb", "2097153"), ("yes", "no"), ("mb", "0"), ("", "0")] {
            assert!(!agree(wanted, shown), "{wanted} {shown}");
        }
    }
}
