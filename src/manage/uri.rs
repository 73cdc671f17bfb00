//! Servers as URIs: `redis://[[user]:password@]host[:port][/database]`, or `rediss://` for TLS; bytes as `%41`. Pure.

use super::access::Credentials;

/// What stands in a URI in the place of a password that is not shown.
pub const MASK: &str = "***";

/// What a URI says. Where there is no more than a place, that is all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uri {
    /// Whether it is reached by TLS.
    pub is_secure: bool,
    /// User and password.
    pub credentials: Option<Credentials>,
    /// Host and port, as they stand there.
    pub place: String,
    /// Database, as it stands there.
    pub database: Option<String>,
}

impl Uri {
    /// Reads one. A word in front of `@` without a colon is a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (is_secure, rest) = match text.split_once("://") {
            Some(("redis" | "valkey", rest)) => (false, rest),
            Some(("rediss" | "valkeys", rest)) => (true, rest),
            _ => return Err("the URI has to begin with redis:// or rediss://".to_owned()),
        };
        let (who, rest) = match rest.rsplit_once('@') {
            Some((who, rest)) => (Some(who), rest),
            None => (None, rest),
        };
        let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        let database = Some(path).filter(|path| !path.is_empty()).map(str::to_owned);
        let credentials = who.map(credentials).transpose()?;
        Ok(Self { is_secure, credentials, place: place.to_owned(), database })
    }
}

fn credentials(who: &str) -> Result<Credentials, String> {
    let (username, password) = who.split_once(':').unwrap_or(("", who));
    let username = Some(decoded(username)?).filter(|name| !name.is_empty());
    Ok(Credentials { username, password: decoded(password)? })
}

fn decoded(text: &str) -> Result<String, String> {
    let wrong = || "the URI has a % that is not followed by two hexadecimal digits".to_owned();
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let is_hex = |(digits, _): &(&str, &str)| digits.bytes().all(|b| b.is_ascii_hexdigit());
        let (digits, rest) = part.split_at_checked(2).filter(is_hex).ok_or_else(wrong)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| wrong())?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).map_err(|_| "the URI is not UTF-8".to_owned())
}

/// A text as part of a URI.
pub fn encoded(text: &str) -> String {
    let said = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02x}"),
    };
    text.bytes().map(said).collect()
}

/// A word without the password in it, if it is a URI with one.
pub fn masked(word: &str) -> String {
    let Some((scheme, rest)) = word.split_once("://") else { return word.to_owned() };
    let Some((who, place)) = rest.rsplit_once('@') else { return word.to_owned() };
    match who.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:{MASK}@{place}"),
        None => format!("{scheme}://{MASK}@{place}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_they_say() {
        type Said<'a> = (bool, Option<&'a str>, Option<&'a str>, &'a str, Option<&'a str>);
        let check = |text: &str, expected: Said<'_>| {
            let uri = Uri::parse(text).unwrap();
            let credentials = uri.credentials.as_ref();
            let username = credentials.and_then(|known| known.username.as_deref());
            let password = credentials.map(|known| known.password.as_str());
            let said =
                (uri.is_secure, username, password, uri.place.as_str(), uri.database.as_deref());
            assert_eq!(said, expected, "{text}");
        };
        check("redis://h:1/0", (false, None, None, "h:1", Some("0")));
        check("rediss://h:1", (true, None, None, "h:1", None));
        check("redis://pw@h:1/?a=b", (false, None, Some("pw"), "h:1", None));
        check("redis://:pw@h:1/3?a", (false, None, Some("pw"), "h:1", Some("3")));
        check("rediss://u:p%40%25%3a@h", (true, Some("u"), Some("p@%:"), "h", None));
        check("redis://u:p:q/@[::1]:7", (false, Some("u"), Some("p:q/"), "[::1]:7", None));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let check = |text: &str, part: &str| {
            let error = Uri::parse(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        };
        check("http://h:1", "has to begin with redis://");
        check("redis://u:%4@h", "two hexadecimal digits");
        check("redis://u:%zz@h", "two hexadecimal digits");
    }

    #[test]
    fn passwords_are_not_shown() {
        let check = |word: &str, expected: &str| assert_eq!(masked(word), expected);
        check("redis://u:p:q@h:1/0", "redis://u:***@h:1/0");
        check("redis://pw@h:1", "redis://***@h:1");
        check("redis://:p@w@h:1", "redis://:***@h:1");
        check("redis://h:1", "redis://h:1");
        check("h:1@2", "h:1@2");
    }

    #[test]
    fn any_text_can_be_part_of_one() {
        let text = "a:b@c/%\u{e9}";
        let uri = Uri::parse(&format!("redis://{}:{}@h:1", encoded("u"), encoded(text))).unwrap();
        assert_eq!(uri.credentials.unwrap().password, text);
    }
}
