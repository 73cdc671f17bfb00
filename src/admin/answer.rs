//! Replies as trees, written in either version of the protocol. Pure.

use crate::resp::value::Value;
use crate::resp::{Protocol, write};

/// A reply.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    /// A word.
    Simple(String),
    /// A text of several lines.
    Lines(String),
    /// A text.
    Text(String),
    /// A number.
    Integer(i64),
    /// Nothing.
    Nil,
    /// Several, in order.
    List(Vec<Answer>),
    /// Several, by name.
    Map(Vec<(String, Answer)>),
    /// Yes or no.
    Flag(bool),
    /// A text for programs.
    Json(serde_json::Value),
    /// What a node answered.
    Node(Value),
}

impl Answer {
    pub(super) fn ok() -> Self {
        Self::Simple("OK".to_owned())
    }

    /// A number; one that is too large is the largest.
    pub(super) fn count(n: impl TryInto<i64>) -> Self {
        Self::Integer(n.try_into().unwrap_or(i64::MAX))
    }

    /// The fields of something.
    pub(super) fn map<const N: usize>(fields: [(&str, Self); N]) -> Self {
        Self::Map(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    pub(super) fn write(&self, out: &mut Vec<u8>, protocol: Protocol) {
        match self {
            Self::Simple(text) => write::simple(out, text),
            Self::Lines(text) => write::verbatim(out, protocol, text),
            Self::Text(text) => write::bulk(out, text),
            Self::Integer(n) => write::integer(out, *n),
            Self::Nil => write::nil(out, protocol),
            Self::List(parts) => {
                write::array(out, parts.len());
                for part in parts {
                    part.write(out, protocol);
                }
            }
            Self::Map(fields) => {
                write::map(out, protocol, fields.len());
                for (name, value) in fields {
                    write::bulk(out, name);
                    value.write(out, protocol);
                }
            }
            Self::Flag(is_so) => write::bulk(out, if *is_so { "yes" } else { "no" }),
            Self::Json(value) => write::verbatim(out, protocol, &value.to_string()),
            Self::Node(value) => node(value, out, protocol),
        }
    }

    /// What is one text only.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The same as JSON. What a node said has no place there.
    pub(super) fn json(&self) -> serde_json::Value {
        match self {
            Self::Simple(text) | Self::Lines(text) | Self::Text(text) => text.as_str().into(),
            Self::Integer(n) => (*n).into(),
            Self::Flag(is_so) => (*is_so).into(),
            Self::Json(value) => value.clone(),
            Self::List(parts) => parts.iter().map(Self::json).collect(),
            Self::Map(fields) => {
                fields.iter().map(|(name, value)| (name.clone(), value.json())).collect()
            }
            Self::Nil | Self::Node(_) => serde_json::Value::Null,
        }
    }
}

/// Nodes are asked in RESP2, and their answers are not deeply nested (`resp::value`).
fn node(value: &Value, out: &mut Vec<u8>, protocol: Protocol) {
    match value {
        Value::SimpleString(text) => write::simple(out, &String::from_utf8_lossy(text)),
        Value::BulkString(text) => write::bulk(out, text),
        Value::Error(text) => write::error(out, text),
        Value::Integer(n) => write::integer(out, *n),
        Value::Null => write::nil(out, protocol),
        Value::Array(parts) => {
            write::array(out, parts.len());
            for part in parts {
                node(part, out, protocol);
            }
        }
    }
}

impl From<&str> for Answer {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Answer {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(answer: &Answer, resp2: &str, resp3: &str) {
        for (protocol, expected) in [(Protocol::Resp2, resp2), (Protocol::Resp3, resp3)] {
            let mut out = Vec::new();
            answer.write(&mut out, protocol);
            assert_eq!(String::from_utf8_lossy(&out), expected);
        }
    }

    #[test]
    fn both_versions() {
        check(&Answer::ok(), "+OK\r\n", "+OK\r\n");
        check(&Answer::Lines("a\n".into()), "$2\r\na\n\r\n", "=6\r\ntxt:a\n\r\n");
        check(&Answer::Nil, "$-1\r\n", "_\r\n");
        check(&Answer::count(u64::MAX), ":9223372036854775807\r\n", ":9223372036854775807\r\n");
        let map = Answer::map([("a", Answer::List(vec!["b".into(), Answer::Integer(1)]))]);
        check(
            &map,
            "*2\r\n$1\r\na\r\n*2\r\n$1\r\nb\r\n:1\r\n",
            "%1\r\n$1\r\na\r\n*2\r\n$1\r\nb\r\n:1\r\n",
        );
        let said = Value::Array(vec![Value::Null, Value::BulkString("x".into())]);
        check(&Answer::Node(said), "*2\r\n$-1\r\n$1\r\nx\r\n", "*2\r\n_\r\n$1\r\nx\r\n");
    }
}
