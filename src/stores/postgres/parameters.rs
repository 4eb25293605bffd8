//! Whether a server would take the values of its configuration file, judged before the file is written: a value that it refuses keeps a
//! running server running and a stopped one from starting. Pure; the limits are those that the running server tells (`pg_settings`).

use std::collections::BTreeMap;

use serde::Deserialize;

/// What `pg_settings` says of a parameter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Setting {
    /// `bool`, `integer`, `real`, `enum` or `string`.
    pub vartype: String,
    /// Who may change it when: `postmaster`, `sighup`, `superuser`, `user`...
    pub context: String,
    pub unit: Option<String>,
    pub min_val: Option<String>,
    pub max_val: Option<String>,
    pub enumvals: Option<Vec<String>>,
    /// Its present value, in its unit.
    pub setting: Option<String>,
}

/// The server that the values are for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Server {
    pub settings: BTreeMap<String, Setting>,
    /// In bytes: the memory limit of the container, or what the node has.
    pub memory: Option<u64>,
    /// The container has huge pages.
    pub huge_pages: bool,
}

/// Parameters whose values must fit together, or the server does not start: they are looked at whether or not they are asked for.
pub const TOGETHER: [&str; 10] = [
    "max_connections",
    "superuser_reserved_connections",
    "reserved_connections",
    "wal_level",
    "max_wal_senders",
    "archive_mode",
    "min_wal_size",
    "max_wal_size",
    "shared_buffers",
    "max_locks_per_transaction",
];

/// What is wrong with the values asked for, each in one sentence that begins with the parameter.
pub fn refusals(wanted: &BTreeMap<String, String>, server: &Server) -> Vec<String> {
    let mut all: Vec<String> = wanted
        .iter()
        .filter_map(|(name, value)| {
            let why = match server.settings.get(name) {
                Some(setting) => invalid(name, value, setting)?,
                // Parameters of extensions may be set before their library is loaded.
                None if name.contains('.') => return None,
                None => "this version of PostgreSQL has no such parameter".to_owned(),
            };
            Some(format!("{name}: {why}"))
        })
        .collect();
    if all.is_empty() {
        all.extend(together(wanted, server));
    }
    all
}

fn invalid(name: &str, value: &str, setting: &Setting) -> Option<String> {
    match setting.vartype.as_str() {
        "bool" => (!is_bool(value)).then(|| format!("{value:?} is neither on nor off")),
        "enum" => invalid_choice(value, setting.enumvals.as_deref().unwrap_or_default()),
        "integer" | "real" => invalid_number(value, setting),
        _ => invalid_text(name, value),
    }
}

/// As PostgreSQL reads them: any unique beginning, in any case.
fn is_bool(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    let begins = |word: &str, least: usize| value.len() >= least && word.starts_with(&value);
    matches!(value.as_str(), "0" | "1")
        || [("true", 1), ("false", 1), ("yes", 1), ("no", 1), ("on", 2), ("off", 2)]
            .iter()
            .any(|(word, least)| begins(word, *least))
}

fn invalid_choice(value: &str, choices: &[String]) -> Option<String> {
    let has = |word: &str| choices.iter().any(|choice| choice.eq_ignore_ascii_case(word));
    // Spellings of on and off are taken, and not listed, where on and off are.
    let on = ["true", "yes", "1"].iter().any(|word| value.eq_ignore_ascii_case(word));
    let off = ["false", "no", "0"].iter().any(|word| value.eq_ignore_ascii_case(word));
    let known = has(value) || (on && has("on")) || (off && has("off"));
    (!known).then(|| format!("{value:?} is none of {}", choices.join(", ")))
}

fn invalid_number(value: &str, setting: &Setting) -> Option<String> {
    let unit = setting.unit.as_deref();
    let number = match number(value, unit) {
        Ok(number) if setting.vartype == "integer" => number.round(),
        Ok(number) => number,
        Err(why) => return Some(why),
    };
    let limit = |text: &Option<String>| text.as_ref()?.parse::<f64>().ok();
    let (least, most) = (limit(&setting.min_val)?, limit(&setting.max_val)?);
    let shown = |number: &Option<String>| format!("{}{}", number.clone().unwrap_or_default(), unit_shown(unit));
    (number < least || number > most).then(|| {
        format!(
            "{value} is outside of the valid range, {} to {}",
            shown(&setting.min_val),
            shown(&setting.max_val)
        )
    })
}

fn unit_shown(unit: Option<&str>) -> String {
    match unit {
        Some(unit) if unit.starts_with(|c: char| c.is_ascii_digit()) => format!(" times {unit}"),
        Some(unit) => format!(" {unit}"),
        None => String::new(),
    }
}

/// Bytes or microseconds in a unit, and which of the two.
fn scale(unit: &str) -> Option<(f64, bool)> {
    let digits = unit.chars().take_while(char::is_ascii_digit).count();
    let times: f64 = if digits == 0 { 1.0 } else { unit[..digits].parse().ok()? };
    let (amount, memory) = match &unit[digits..] {
        "B" => (1.0, true),
        "kB" => (1024.0, true),
        "MB" => (1_048_576.0, true),
        "GB" => (1_073_741_824.0, true),
        "TB" => (1_099_511_627_776.0, true),
        "us" => (1.0, false),
        "ms" => (1e3, false),
        "s" => (1e6, false),
        "min" => (6e7, false),
        "h" => (3.6e9, false),
        "d" => (8.64e10, false),
        _ => return None,
    };
    Some((times * amount, memory))
}

/// A number in the parameter's own unit.
fn number(value: &str, base: Option<&str>) -> Result<f64, String> {
    let value = value.trim();
    let hexadecimal = value.strip_prefix("0x").or_else(|| value.strip_prefix("0X"));
    if let Some(number) = hexadecimal.and_then(|digits| i64::from_str_radix(digits, 16).ok()) {
        return Ok(number as f64);
    }
    let end = value
        .char_indices()
        .find(|(at, c)| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-') || is_exponent(value, *at)))
        .map_or(value.len(), |(at, _)| at);
    let plain = value[..end].parse::<f64>().ok().filter(|number| number.is_finite());
    let number = plain.ok_or_else(|| format!("{value:?} is not a number"))?;
    let unit = value[end..].trim();
    if unit.is_empty() {
        return Ok(number);
    }
    let (Some(base), Some((factor, memory))) = (base.and_then(scale), scale(unit)) else {
        return Err(format!("{value:?} has a unit that this parameter does not take"));
    };
    match base {
        (per, kind) if kind == memory => Ok(number * factor / per),
        (_, true) => Err(format!("{value:?} is not an amount of memory: use B, kB, MB, GB or TB")),
        (_, false) => Err(format!("{value:?} is not a time: use us, ms, s, min, h or d")),
    }
}

fn is_exponent(value: &str, at: usize) -> bool {
    let next = value[at + 1..].starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-'));
    matches!(value.as_bytes().get(at), Some(b'e' | b'E')) && next && at > 0
}

/// The few texts that a server reads only when it starts or reloads, so that it cannot be asked before.
fn invalid_text(name: &str, value: &str) -> Option<String> {
    let list = |allowed: &[&str]| {
        let words = value.split(',').map(|word| word.trim().to_ascii_lowercase());
        let wrong: Vec<String> = words.filter(|word| !allowed.contains(&word.as_str())).collect();
        (!wrong.is_empty()).then(|| format!("{:?} is none of {}", wrong.join(", "), allowed.join(", ")))
    };
    match name {
        "log_destination" => list(&["stderr", "csvlog", "jsonlog", "syslog"]),
        "debug_io_direct" if !value.trim().is_empty() => list(&["data", "wal", "wal_init"]),
        _ => None,
    }
}

/// Values that are each right and together keep a server from starting.
fn together(wanted: &BTreeMap<String, String>, server: &Server) -> Option<String> {
    let text = |name: &str| {
        let setting = server.settings.get(name)?;
        wanted.get(name).cloned().or_else(|| setting.setting.clone())
    };
    let amount = |name: &str| {
        let unit = server.settings.get(name)?.unit.as_deref();
        let number = number(&text(name)?, unit).ok()?;
        Some(number * unit.and_then(scale).map_or(1.0, |(factor, _)| factor))
    };
    let connections = amount("max_connections").unwrap_or(100.0);
    let reserved =
        amount("superuser_reserved_connections").unwrap_or(3.0) + amount("reserved_connections").unwrap_or_default();
    if reserved >= connections {
        return Some(format!(
            "max_connections: {connections} leaves none beside the {reserved} that are reserved"
        ));
    }
    let is = |name: &str, value: &str| text(name).is_some_and(|text| text.eq_ignore_ascii_case(value));
    if is("wal_level", "minimal") {
        if amount("max_wal_senders").is_some_and(|senders| senders > 0.0) {
            return Some("wal_level: minimal needs max_wal_senders to be 0".into());
        }
        if text("archive_mode").is_some_and(|mode| !mode.eq_ignore_ascii_case("off")) {
            return Some("wal_level: minimal needs archive_mode to be off".into());
        }
    }
    const TWO_SEGMENTS: f64 = 2.0 * 16.0 * 1_048_576.0;
    for name in ["min_wal_size", "max_wal_size"] {
        if amount(name).is_some_and(|size| size < TWO_SEGMENTS) {
            return Some(format!("{name}: write at least 32MB, two segments"));
        }
    }
    if wanted.contains_key("huge_pages") && on(wanted.get("huge_pages")) && !server.huge_pages {
        return Some(
            "huge_pages: on needs huge pages in managed.resources.limits, such as hugepages-2Mi; or write try".into(),
        );
    }
    let memory = server.memory? as f64;
    // What the server takes when it starts: its buffers, and its tables of connections and locks.
    let slots = connections + amount("max_wal_senders").unwrap_or(10.0) + 32.0;
    let locks = amount("max_locks_per_transaction").unwrap_or(64.0) * slots * 320.0;
    let tables = locks + slots * 32_768.0;
    let buffers = amount("shared_buffers").unwrap_or_default();
    let mib = |bytes: f64| (bytes / 1_048_576.0).round();
    (buffers + tables > memory).then(|| {
        let name = if buffers > tables {
            "shared_buffers"
        } else {
            "max_connections and max_locks_per_transaction"
        };
        format!(
            "{name}: the server would take {} MiB when it starts, and there are {} MiB",
            mib(buffers + tables),
            mib(memory)
        )
    })
}

fn on(value: Option<&String>) -> bool {
    value.is_some_and(|value| {
        ["on", "true", "yes", "1"]
            .iter()
            .any(|word| value.eq_ignore_ascii_case(word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn server() -> Server {
        let settings = json!({
            "max_connections": {"vartype": "integer", "context": "postmaster", "min_val": "1", "max_val": "262143", "setting": "100"},
            "superuser_reserved_connections": {"vartype": "integer", "context": "postmaster", "min_val": "0", "max_val": "262143", "setting": "3"},
            "shared_buffers": {"vartype": "integer", "context": "postmaster", "unit": "8kB", "min_val": "16", "max_val": "1073741823", "setting": "16384"},
            "work_mem": {"vartype": "integer", "context": "user", "unit": "kB", "min_val": "64", "max_val": "2147483647", "setting": "4096"},
            "wal_level": {"vartype": "enum", "context": "postmaster", "enumvals": ["minimal", "replica", "logical"], "setting": "replica"},
            "max_wal_senders": {"vartype": "integer", "context": "postmaster", "min_val": "0", "max_val": "262143", "setting": "10"},
            "min_wal_size": {"vartype": "integer", "context": "sighup", "unit": "MB", "min_val": "2", "max_val": "2147483647", "setting": "80"},
            "huge_pages": {"vartype": "enum", "context": "postmaster", "enumvals": ["off", "on", "try"], "setting": "try"},
            "autovacuum": {"vartype": "bool", "context": "sighup", "setting": "on"},
            "checkpoint_timeout": {"vartype": "integer", "context": "sighup", "unit": "s", "min_val": "30", "max_val": "86400", "setting": "300"},
            "random_page_cost": {"vartype": "real", "context": "user", "min_val": "0", "max_val": "1.79769e+308", "setting": "4"},
            "log_destination": {"vartype": "string", "context": "sighup", "setting": "stderr"},
        });
        Server {
            settings: serde_json::from_value(settings).unwrap(),
            memory: Some(1 << 30),
            huge_pages: false,
        }
    }

    fn refused(wanted: serde_json::Value) -> String {
        refusals(&serde_json::from_value(wanted).unwrap(), &server()).join("; ")
    }

    #[test]
    fn what_the_server_takes_is_let_through() {
        for wanted in [
            json!({}),
            json!({"work_mem": "64MB", "shared_buffers": " 256 MB ", "checkpoint_timeout": "1h"}),
            json!({"work_mem": "1.5MB", "random_page_cost": "1.1e0", "max_connections": "0x64"}),
            json!({"autovacuum": "of", "huge_pages": "false", "wal_level": "LOGICAL"}),
            json!({"pg_stat_statements.max": "5000", "log_destination": "stderr, csvlog"}),
            json!({"wal_level": "minimal", "max_wal_senders": "0"}),
        ] {
            assert_eq!(refused(wanted.clone()), "", "{wanted}");
        }
    }

    #[test]
    fn what_it_would_not_take_is_named_with_the_reason() {
        for (wanted, expected) in [
            (
                json!({"no_such": "1"}),
                "no_such: this version of PostgreSQL has no such parameter",
            ),
            (
                json!({"max_connections": "0"}),
                "max_connections: 0 is outside of the valid range, 1 to 262143",
            ),
            (
                json!({"max_connections": "many"}),
                "max_connections: \"many\" is not a number",
            ),
            (
                json!({"work_mem": "1kB"}),
                "work_mem: 1kB is outside of the valid range, 64 kB to 2147483647 kB",
            ),
            (
                json!({"work_mem": "10min"}),
                "work_mem: \"10min\" is not an amount of memory: use B, kB, MB, GB or TB",
            ),
            (
                json!({"work_mem": "10mb"}),
                "work_mem: \"10mb\" has a unit that this parameter does not take",
            ),
            (
                json!({"checkpoint_timeout": "1MB"}),
                "checkpoint_timeout: \"1MB\" is not a time: use us, ms, s, min, h or d",
            ),
            (
                json!({"max_connections": "1kB"}),
                "max_connections: \"1kB\" has a unit that this parameter does not take",
            ),
            (json!({"autovacuum": "o"}), "autovacuum: \"o\" is neither on nor off"),
            (
                json!({"wal_level": "all"}),
                "wal_level: \"all\" is none of minimal, replica, logical",
            ),
            (
                json!({"log_destination": "stderr,file"}),
                "log_destination: \"file\" is none of stderr, csvlog, jsonlog, syslog",
            ),
            (
                json!({"wal_level": "minimal"}),
                "wal_level: minimal needs max_wal_senders to be 0",
            ),
            (
                json!({"max_connections": "3"}),
                "max_connections: 3 leaves none beside the 3 that are reserved",
            ),
            (
                json!({"min_wal_size": "20MB"}),
                "min_wal_size: write at least 32MB, two segments",
            ),
            (json!({"huge_pages": "on"}), "huge_pages: on needs huge pages"),
            (
                json!({"shared_buffers": "8GB"}),
                "shared_buffers: the server would take 8",
            ),
        ] {
            let got = refused(wanted.clone());
            assert!(got.starts_with(expected), "{wanted}: {got}");
        }
    }
}
