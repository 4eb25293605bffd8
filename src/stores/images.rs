//! The one table of images: engine and version to the public image that the operator runs.

use std::collections::BTreeMap;

/// (engine, version, image). PostgreSQL's images contain pgvector.
const TABLE: [(&str, &str, &str); 7] = [
    ("postgres", "15", "docker.io/pgvector/pgvector:pg15"),
    ("postgres", "16", "docker.io/pgvector/pgvector:pg16"),
    ("postgres", "17", "docker.io/pgvector/pgvector:pg17"),
    ("redis", "7", "docker.io/library/redis:7"),
    ("redis", "8", "docker.io/library/redis:8"),
    ("valkey", "8", "docker.io/valkey/valkey:8"),
    ("neo4j", "5.26", "docker.io/library/neo4j:5.26-community"),
];

/// The table with an installation's changes.
#[derive(Clone, Debug, Default)]
pub struct Images {
    registry: Option<String>,
    overrides: BTreeMap<String, String>,
}

impl Images {
    /// `registry` replaces `docker.io`; `overrides` is `engine:version=image`, separated by commas.
    pub fn new(registry: Option<String>, overrides: &str) -> Result<Self, String> {
        let entries = overrides.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let parse = |entry: &str| match entry.split_once('=') {
            Some((key, image)) if key.contains(':') && !image.is_empty() => Ok((key.to_owned(), image.to_owned())),
            _ => Err(format!(
                "{entry:?} is not an image override: write engine:version=image, such as postgres:17=registry.example/postgres:17"
            )),
        };
        Ok(Self {
            registry: registry.filter(|registry| !registry.is_empty()),
            overrides: entries.map(parse).collect::<Result<_, _>>()?,
        })
    }

    /// The image of an engine's version; `None` for a version that is not in the table.
    pub fn of(&self, engine: &str, version: &str) -> Option<String> {
        if let Some(image) = self.overrides.get(&format!("{engine}:{version}")) {
            return Some(image.clone());
        }
        let (_, _, image) = TABLE.iter().find(|(known, of, _)| *known == engine && *of == version)?;
        Some(match &self.registry {
            Some(registry) => image.replacen("docker.io", registry, 1),
            None => (*image).to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys of `images.overrides`, as the chart's schema has them.
    fn keys() -> String {
        let mut engines: Vec<(&str, Vec<String>)> = Vec::new();
        for (engine, version, _) in TABLE {
            let version = version.replace('.', "\\.");
            match engines.last_mut() {
                Some((last, versions)) if *last == engine => versions.push(version),
                _ => engines.push((engine, vec![version])),
            }
        }
        let one = |(engine, versions): &(&str, Vec<String>)| match versions.as_slice() {
            [version] => format!("{engine}:{version}"),
            versions => format!("{engine}:({})", versions.join("|")),
        };
        format!("^({})$", engines.iter().map(one).collect::<Vec<_>>().join("|"))
    }

    #[test]
    fn the_chart_and_its_documentation_have_the_same_table() {
        let schema: serde_json::Value =
            serde_json::from_str(include_str!("../../charts/amas-operator/values.schema.json")).unwrap();
        let pattern = &schema["properties"]["images"]["properties"]["overrides"]["propertyNames"]["pattern"];
        assert_eq!(pattern, &keys());
        let documented = include_str!("../../docs/configuration.md");
        for (engine, version, _) in TABLE {
            assert!(
                documented.contains(&format!("`{engine}:{version}`")),
                "{engine}:{version}"
            );
        }
    }

    #[test]
    fn overrides_win_then_the_registry() {
        let images = Images::new(
            Some("mirror.example".into()),
            "redis:8=localhost/redis:8, neo4j:5.26=localhost/neo4j",
        )
        .unwrap();
        assert_eq!(images.of("redis", "8").as_deref(), Some("localhost/redis:8"));
        assert_eq!(
            images.of("postgres", "17").as_deref(),
            Some("mirror.example/pgvector/pgvector:pg17")
        );
        assert_eq!(images.of("postgres", "9"), None);
        assert!(Images::new(None, "redis").is_err());
    }
}
