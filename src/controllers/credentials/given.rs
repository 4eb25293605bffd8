//! A Secret that the user brings: which keys it has, and what is wrong with it. Pure; no value of it reaches a message.

use super::{Entries, Known};
use crate::api::sensitive::Sensitive;

/// The keys, as in Kubernetes' own type `kubernetes.io/basic-auth`.
const PASSWORD: &str = "password";
const USERNAME: &str = "username";
/// Bytes.
const LONGEST: usize = 512;

/// A password that the user brings.
#[derive(Clone, Debug, PartialEq)]
pub enum Given {
    /// None: the operator makes one.
    No,
    Password(Sensitive),
    /// The Secret cannot be used; why, and what to do.
    Unusable(String),
}

/// What a password must be like for its server.
#[derive(Clone, Copy, Debug)]
pub struct Rule<'a> {
    /// The login it is for.
    pub user: &'a str,
    /// Characters.
    pub shortest: usize,
}

/// Judges the Secret `name`.
pub fn judge(name: &str, known: Option<&Known>, rule: Rule<'_>) -> Given {
    let Some(Known::Present(entries)) = known else {
        return Given::Unusable(format!("Secret {name} does not exist; create it with a key {PASSWORD}"));
    };
    match password(entries, rule) {
        Ok(password) => Given::Password(password),
        Err(problem) => Given::Unusable(format!("Secret {name}: {problem}")),
    }
}

fn password(entries: &Entries, rule: Rule<'_>) -> Result<Sensitive, String> {
    if entries.get(USERNAME).is_some_and(|user| user.reveal() != rule.user) {
        return Err(format!(
            "its key {USERNAME} names somebody else than {}; it holds the credentials of another login",
            rule.user
        ));
    }
    let password = entries
        .get(PASSWORD)
        .ok_or_else(|| format!("it has no key {PASSWORD} that is UTF-8 text"))?;
    let text = password.reveal();
    if text.chars().any(char::is_control) {
        return Err(format!(
            "{PASSWORD} contains a line break or control character; was it made by echo without -n?"
        ));
    }
    if text.chars().count() < rule.shortest.max(1) || text.len() > LONGEST {
        let shortest = rule.shortest.max(1);
        return Err(format!("{PASSWORD} must have {shortest} to {LONGEST} characters"));
    }
    Ok(password.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_wrong_and_never_what_is_in_it() {
        let rule = Rule {
            user: "app",
            shortest: 8,
        };
        let of = |entries: &[(&str, &str)]| {
            let entries = entries
                .iter()
                .map(|(key, value)| ((*key).to_owned(), Sensitive::new(*value)));
            judge("mine", Some(&Known::Present(entries.collect())), rule)
        };
        let table: [(&[(&str, &str)], &str); 5] = [
            (&[("Password", "hunter22")], "no key password"),
            (&[("password", "hunter22\n")], "echo without -n"),
            (&[("password", "hunter2")], "8 to 512"),
            (&[("password", "")], "8 to 512"),
            (&[("password", "hunter22"), ("username", "hunter")], "another login"),
        ];
        for (entries, expected) in table {
            let Given::Unusable(problem) = of(entries) else {
                panic!("{entries:?} is taken");
            };
            assert!(
                problem.contains(expected) && problem.contains("Secret mine"),
                "{problem}"
            );
            assert!(!problem.contains("hunter"), "{problem}");
        }
        let right = Given::Password(Sensitive::new("hunter22"));
        assert_eq!(of(&[("password", "hunter22"), ("username", "app")]), right);
        assert!(matches!(judge("mine", Some(&Known::Absent), rule), Given::Unusable(_)));
    }
}
