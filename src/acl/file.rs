//! Files of users: one line each, as `ACL LIST` shows them.

use super::{User, Users};

impl Users {
    /// Reads all users from a file's text, or says everything that is wrong with it. A default user that is not there is
    /// as it would be without a file.
    pub fn parse(text: &str, file: &str) -> Result<Self, String> {
        let (mut users, mut problems) = (Self::default(), String::new());
        let mut names = std::collections::HashSet::new();
        for (number, line) in (1..).zip(text.lines()) {
            let mut words = line.trim().split(' ').filter(|word| !word.is_empty());
            let (word, name) = (words.next(), words.next());
            match (word, name) {
                (None, _) => {}
                (Some(word), _) if word.starts_with('#') => {}
                (Some("user"), Some(name)) if names.insert(name) => {
                    match User::new(name).with_all(words.map(str::as_bytes)) {
                        Ok(user) => users = users.having(user),
                        Err(error) => problems += &format!("{file}:{number}: {error}. "),
                    }
                }
                (Some("user"), Some(name)) => {
                    problems +=
                        &format!("WARNING: Duplicate user '{name}' found on line {number}. ");
                }
                _ => {
                    problems += &format!(
                        "{file}:{number} should start with user keyword followed by the username. "
                    );
                }
            }
        }
        match problems.is_empty() {
            true => Ok(users),
            false => Err(problems
                + "WARNING: ACL errors detected, no change to the previously active ACL rules was performed"),
        }
    }

    /// The text of a file that makes these users.
    pub fn text(&self) -> Vec<u8> {
        self.iter().flat_map(|user| [user.line(), b"\n".to_vec()].concat()).collect()
    }
}
