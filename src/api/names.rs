//! Names that are quoted into SQL, Cypher, Redis keys or Kubernetes names: parsed once, then trusted everywhere.
//!
//! Each type carries its pattern into the CRD schema, so the apiserver refuses what `parse` would refuse.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The pattern of the names of Kubernetes objects: DNS subdomains.
pub const OBJECT_NAME: &str = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$";
/// The pattern of an image's reference.
pub const IMAGE: &str = "^[A-Za-z0-9][A-Za-z0-9._/:@-]*$";

/// Why a text is not a valid name: which kind of name, the text, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not a valid {kind}: {rule}")]
pub struct InvalidName {
    pub kind: &'static str,
    pub value: String,
    pub rule: &'static str,
}

/// Declares a newtype over `String` whose characters are checked by `$ok` and whose schema carries `$pattern`.
macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal, max $max:literal, $pattern:literal, $rule:literal, $first:expr, $rest:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            pub const MAX_LENGTH: usize = $max;

            pub fn parse(value: impl Into<String>) -> Result<Self, InvalidName> {
                let value = value.into();
                let mut chars = value.chars();
                let (first, rest): (fn(char) -> bool, fn(char) -> bool) = ($first, $rest);
                let valid = value.len() <= $max && chars.next().is_some_and(first) && chars.all(rest);
                if valid { Ok(Self(value)) } else { Err(InvalidName { kind: $kind, value, rule: $rule }) }
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(value: &str) -> Result<Self, InvalidName> {
                Self::parse(value)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(value: String) -> Result<Self, InvalidName> {
                Self::parse(value)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "minLength": 1, "maxLength": $max, "pattern": $pattern })
            }
        }
    };
}

name_type!(
    /// A PostgreSQL identifier: database, role, schema, configuration parameter. Lower case, so that it means the same quoted and unquoted.
    SqlName, "SQL name", max 63, "^[a-z_][a-z0-9_]*$",
    "use 1 to 63 lower-case letters, digits and underscores, not starting with a digit",
    |c| c.is_ascii_lowercase() || c == '_', |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'
);

impl SqlName {
    /// The schema `public`.
    pub fn public() -> Self {
        Self("public".to_owned())
    }
}

name_type!(
    /// A PostgreSQL extension name; unlike other SQL names it may contain hyphens (`uuid-ossp`).
    ExtensionName, "extension name", max 63, "^[a-z_][a-z0-9_-]*$",
    "use 1 to 63 lower-case letters, digits, underscores and hyphens, not starting with a digit or hyphen",
    |c| c.is_ascii_lowercase() || c == '_', |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-'
);

name_type!(
    /// A Neo4j label, relationship type, property, constraint or index name that needs no quoting tricks.
    GraphName, "graph name", max 128, "^[A-Za-z_][A-Za-z0-9_]*$",
    "use 1 to 128 letters, digits and underscores, not starting with a digit",
    |c| c.is_ascii_alphabetic() || c == '_', |c| c.is_ascii_alphanumeric() || c == '_'
);

name_type!(
    /// The first part of every Redis key of a platform, written before a colon. Glob characters are not allowed.
    KeyPrefix, "key prefix", max 64, "^[A-Za-z0-9_.-]+$",
    "use 1 to 64 letters, digits, dots, underscores and hyphens, without the trailing colon",
    |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'), |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')
);

name_type!(
    /// A Redis glob pattern over keys (`*`, `?`, `[a-z]`, `\\` before a literal), written relative to the policy's prefix.
    KeyPattern, "key pattern", max 256, "^[!-~]+$",
    "use 1 to 256 printable ASCII characters without spaces",
    |c| c.is_ascii_graphic(), |c| c.is_ascii_graphic()
);

name_type!(
    /// The name of an entry in one of our lists (a rule, a role's purpose, a source): a Kubernetes DNS label.
    ItemName, "item name", max 63, "^[a-z0-9][a-z0-9-]*$",
    "use 1 to 63 lower-case letters, digits and hyphens, not starting with a hyphen",
    |c| c.is_ascii_lowercase() || c.is_ascii_digit(), |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_ordinary_names() {
        assert!(SqlName::parse("amas_app").is_ok());
        assert!(ExtensionName::parse("uuid-ossp").is_ok());
        assert!(GraphName::parse("task_id_unique").is_ok());
        assert!(KeyPrefix::parse("amas").is_ok());
        assert!(ItemName::parse("recent-feed").is_ok());
    }

    #[test]
    fn refuses_what_would_need_quoting() {
        for bad in [
            "",
            "1a",
            "A",
            "a-b",
            "a b",
            "a\"b",
            "a;drop",
            "ä",
            "a\n",
            &"x".repeat(64),
        ] {
            assert!(SqlName::parse(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "a`b", "a b", "1a", "a-b", &"x".repeat(129)] {
            assert!(GraphName::parse(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "a:b", "a*", "a[b]"] {
            assert!(KeyPrefix::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_error_says_what_is_allowed() {
        let error = SqlName::parse("Bad Name").unwrap_err().to_string();
        assert_eq!(
            error,
            "\"Bad Name\" is not a valid SQL name: use 1 to 63 lower-case letters, digits and underscores, not starting with a digit"
        );
    }
}
