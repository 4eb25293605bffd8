//! The file a managed server reads its users from, so that the password itself is in no Pod, ConfigMap or argument.

use sha2::{Digest, Sha256};

use crate::api::sensitive::Sensitive;

/// The content of `aclfile`: user `default` with every right and this password, kept as its SHA-256.
pub fn acl_file(password: &Sensitive) -> String {
    let digest = Sha256::digest(password.reveal().as_bytes());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("user default on #{hex} ~* &* +@all\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_the_digest_and_not_the_password() {
        assert_eq!(
            acl_file(&Sensitive::new("secret")),
            "user default on #2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b ~* &* +@all\n"
        );
    }
}
