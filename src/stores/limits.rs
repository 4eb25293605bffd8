//! What a server, or our login on it, does not allow, and what follows from it. Nothing of this is an error by itself. Pure.

/// Stable words: they are shown in the status, and people match on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    /// Every store.
    ReadOnly,
    /// PostgreSQL.
    NoSuperuser,
    NoCreateRole,
    NoCreateDatabase,
    NoReadAllSettings,
    UriNotChecked,
    UriReadOnly,
    OtherRoleLimits,
    FewConnections,
    /// Redis.
    NoConfig,
    NoAcl,
    NoInfo,
    NoScan,
    NoTouchUnknown,
    /// Neo4j.
    NoRoles,
}

impl Limit {
    /// What follows from it, and what may be done.
    pub fn consequence(self) -> &'static str {
        match self {
            Self::ReadOnly => {
                "nothing can be written there: a standby, a replica, or a server that is set so; what is not in already is Refused. Give the address of the \
                 primary"
            }
            Self::NoSuperuser => {
                "extensions that are not trusted (vector) have to be made by an administrator; a role's password is checked by logging in with it"
            }
            Self::NoCreateRole => {
                "roles cannot be made and are not claimed; they have to be there, or give the login CREATEROLE, or use privileges: Owner without roles"
            }
            Self::NoCreateDatabase => {
                "the database has to be there before, made by an administrator: CREATE DATABASE ... OWNER ..."
            }
            Self::NoReadAllSettings => {
                "settings such as shared_preload_libraries cannot be read, so whether a library that an extension needs is loaded is not known before its use"
            }
            Self::UriNotChecked => {
                "nobody could log in by the Secret's uri with its own user, so whether it leads to the same server as directUri is not known"
            }
            Self::UriReadOnly => {
                "the Secret's uri leads to a standby of the server of directUri: applications can only read"
            }
            Self::OtherRoleLimits => {
                "roles that were brought have other connection limits than connectionLimit says, and an owner may not set them; an administrator may: ALTER ROLE ... \
                 CONNECTION LIMIT ..."
            }
            Self::FewConnections => {
                "the roles' connection limits, with 7 for the operator, migrations and superusers, come to more than the server's max_connections: some may be refused \
                 before they reach theirs"
            }
            Self::NoConfig => {
                "CONFIG is refused: an eviction of a CachePolicy is not set but verified through INFO, and shown as enforcedBy Provider"
            }
            Self::NoAcl => {
                "ACL is refused: users and their rights are the provider's, and what the login may do shows only when it is refused"
            }
            Self::NoInfo => {
                "INFO is refused: start time, memory and number of keys are not known, and an eviction is Unverified"
            }
            Self::NoScan => "SCAN is refused: the rules of CachePolicies cannot be followed",
            Self::NoTouchUnknown => {
                "CLIENT NO-TOUCH is unknown or refused: a sweep makes the keys it looks at seem used, which an LRU or LFU eviction takes note of"
            }
            Self::NoRoles => {
                "Community edition: every user is an administrator, so whoever reads the connection Secret may change everything in the graph"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_consequence_fits_in_a_status() {
        let all = [
            Limit::ReadOnly,
            Limit::NoSuperuser,
            Limit::NoCreateRole,
            Limit::NoCreateDatabase,
            Limit::NoReadAllSettings,
            Limit::UriNotChecked,
            Limit::UriReadOnly,
            Limit::OtherRoleLimits,
            Limit::FewConnections,
            Limit::NoConfig,
            Limit::NoAcl,
            Limit::NoInfo,
            Limit::NoScan,
            Limit::NoTouchUnknown,
            Limit::NoRoles,
        ];
        for limit in all {
            assert!((20..=256).contains(&limit.consequence().len()), "{limit:?}");
        }
    }
}
