//! Files of users: one line each, as `ACL LIST` shows them.

use super::{User, Users};

impl Users {
    /// Reads all users from a file's text, or says everything that is wrong with it. A default user that is not there is
    /// as it would be without a file.
    pub fn parse(text: &str, file: &str) -> Result<Self, String> {
        let (mut users, mut problems) = (Self::default(), Vec::new());
        let mut names = std::collections::HashSet::new();
        for (number, line) in (1..).zip(text.lines()) {
            match read(line) {
                Ok(Some(user)) if !names.insert(user.name.clone()) => {
                    let name = user.name;
                    problems
                        .push(format!("WARNING: Duplicate user '{name}' found on line {number}."));
                }
                Ok(Some(user)) => users = users.having(user),
                Ok(None) => {}
                Err(problem) => {
                    problems.push(format!("{file}:{number}{problem}."));
                }
            }
        }
        if problems.is_empty() { Ok(users) } else { Err(problems.join(" ")) }
    }

    /// The text of a file that makes these users.
    pub fn text(&self) -> Vec<u8> {
        self.iter().flat_map(|user| [user.line(), b"\n".to_vec()].concat()).collect()
    }
}

/// The user of a line; none if that is empty or a comment.
fn read(line: &str) -> Result<Option<User>, String> {
    let mut words = line.trim().split(' ').filter(|word| !word.is_empty());
    match (words.next(), words.next()) {
        (None, _) => Ok(None),
        (Some(word), _) if word.starts_with('#') => Ok(None),
        (Some("user"), Some(name)) => {
            let user = User::new(name).with_all(words.map(str::as_bytes));
            user.map(Some).map_err(|error| format!(": {}", error.without_rule()))
        }
        _ => Err(" should start with user keyword followed by the username".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let text = "user default on nopass sanitize-payload ~* &* +@all\n# me\n\nuser me on >a %R~x* (~y +get)\n";
        let users = Users::parse(text, "f").unwrap();
        assert_eq!(users.iter().len(), 2);
        assert_eq!(Users::parse(&String::from_utf8(users.text()).unwrap(), "f").unwrap(), users);
        assert_eq!(Users::parse("", "f").unwrap(), Users::default());
    }

    #[test]
    fn all_that_is_wrong_is_told() {
        let told = Users::parse("user a\nuser a on\nb on\nuser c (+get\nuser d > secret", "f")
            .unwrap_err();
        let expected = "WARNING: Duplicate user 'a' found on line 2. f:3 should start with user keyword followed by the username. f:4: Unmatched parenthesis in selector definition. f:5: Syntax error.";
        assert_eq!(told, expected);
    }
}
