//! The file a managed Neo4j takes its first login from: no JVM of its own for setting a password, and no clear text in the Pod.

use sha2::{Digest, Sha256};

use crate::api::sensitive::Sensitive;

const ITERATIONS: u32 = 1024;

/// The content of `data/dbms/auth.ini`, read by the server at its very first start only.
pub fn auth_ini(user: &str, password: &Sensitive, salt: [u8; 32]) -> String {
    let mut hash = Sha256::new()
        .chain_update(salt)
        .chain_update(password.reveal().as_bytes())
        .finalize();
    for _ in 1..ITERATIONS {
        hash = Sha256::digest(hash);
    }
    format!(
        "{user}:SHA-256,{},{},{ITERATIONS}:\n",
        hex::encode(hash),
        hex::encode(salt)
    )
}

/// Whether a line of that file is for this password.
pub fn auth_matches(line: &str, password: &Sensitive) -> bool {
    let mut fields = line.trim_end().split([':', ',']);
    let (Some(user), Some(salt)) = (fields.next(), fields.nth(2)) else {
        return false;
    };
    hex::decode(salt)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .is_some_and(|salt| auth_ini(user, password, salt) == line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_server_s_form() {
        let line = auth_ini("neo4j", &Sensitive::new("secret"), [0xab; 32]);
        let fields: Vec<&str> = line.trim_end().split([':', ',']).collect();
        assert_eq!(fields[..2], ["neo4j", "SHA-256"]);
        assert_eq!(
            (fields[2].len(), fields[3], fields[4], fields[5]),
            (64, "ab".repeat(32).as_str(), "1024", "")
        );
        assert!(auth_matches(&line, &Sensitive::new("secret")) && !auth_matches(&line, &Sensitive::new("other")));
        assert!(
            !auth_matches("", &Sensitive::new("")) && !auth_matches("neo4j:SHA-256,x,ä,1024:", &Sensitive::new(""))
        );
        assert!(line.ends_with(":\n") && !line.contains("secret"));
    }
}
