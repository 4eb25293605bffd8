//! The programs that speak Redis' protocol, a row each: what their public images and their INFO call things. Everything else is the same for
//! all of them; their images are in [`crate::stores::images`].

use crate::api::redis::RedisEngine;

/// One of them.
#[derive(Debug, PartialEq, Eq)]
pub struct Program {
    pub engine: RedisEngine,
    /// As in the table of images, in labels, and as the server names itself.
    pub name: &'static str,
    pub server: &'static str,
    pub config_folder: &'static str,
    /// Under which its image runs.
    pub user: i64,
    /// The field of INFO with its own version: others also tell which Redis they are compatible with.
    pub version_field: &'static str,
}

static REDIS: Program = Program {
    engine: RedisEngine::Redis,
    name: "redis",
    server: "redis-server",
    config_folder: "/etc/redis",
    user: 999,
    version_field: "redis_version",
};

static VALKEY: Program = Program {
    engine: RedisEngine::Valkey,
    name: "valkey",
    server: "valkey-server",
    config_folder: "/etc/valkey",
    user: 999,
    version_field: "valkey_version",
};

static PROGRAMS: [&Program; 2] = [&REDIS, &VALKEY];

/// The program of an engine.
pub fn of(engine: RedisEngine) -> &'static Program {
    find(|program| program.engine == engine)
}

/// The program that names itself so; Redis, which long told no name, for any other.
pub fn named(server_name: &str) -> &'static Program {
    find(|program| program.name == server_name)
}

fn find(is: impl Fn(&Program) -> bool) -> &'static Program {
    PROGRAMS.into_iter().find(|program| is(program)).unwrap_or(&REDIS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::images::Images;

    #[test]
    fn every_engine_has_its_row_and_an_image_of_its_default_version() {
        for engine in [RedisEngine::Redis, RedisEngine::Valkey] {
            let program = of(engine);
            assert_eq!((program.engine, named(program.name)), (engine, program));
            assert!(Images::default().of(program.name, "8").is_some(), "{program:?}");
        }
        assert_eq!(named("").engine, RedisEngine::Redis);
    }
}
