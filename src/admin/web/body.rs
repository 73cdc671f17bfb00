//! What is ordered in JSON, as words. Pure.
//!
//! Words that follow each other cannot be taken for something else by whoever reads them: each value stands behind its word.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::admin::complaint::Complaint;

/// How a field is said in words.
#[derive(Clone, Copy)]
pub(super) enum Field {
    /// As it is. Those come first.
    Bare,
    /// Each of several addresses, as it is.
    Addresses,
    /// Behind this word.
    Word(&'static str),
    /// This word, if it is true.
    Flag(&'static str),
    /// `yes` or `no` behind this word.
    Choice(&'static str),
    /// Each of several behind this word.
    Each(&'static str),
    /// Each `name=value` behind this word.
    Pairs(&'static str),
    /// One of these, each of which stands for words.
    OneOf(&'static [(&'static str, &'static [&'static str])]),
}

/// The fields that a body may have.
pub(super) type Shape = [(&'static str, Field)];

/// What a body has.
pub(super) type Fields = Map<String, Value>;

/// How slots are moved, and what else is said about any order.
const MOVING: &Shape = &[
    ("method", Field::Word("METHOD")),
    ("batch", Field::Word("BATCH")),
    ("max_block_ms", Field::Word("MAXBLOCKMS")),
    ("parallel", Field::Word("PARALLEL")),
    ("rate", Field::Word("RATE")),
    ("wait_replicas", Field::Word("WAITREPLICAS")),
    ("big_keys", Field::Word("BIGKEYS")),
    ("force", Field::Each("FORCE")),
    ("sync", Field::Flag("SYNC")),
    ("timeout_ms", Field::Word("TIMEOUT")),
];

pub(super) const ADD_NODE: &Shape = &[
    ("addr", Field::Bare),
    ("role", Field::OneOf(&[("master", &[]), ("replica", &["REPLICA"])])),
    ("master_id", Field::Word("REPLICAOF")),
    ("rebalance", Field::Choice("REBALANCE")),
    ("weight", Field::Word("WEIGHT")),
    ("replicas", Field::Each("WITH")),
];

pub(super) const REMOVE_NODE: &Shape = &[
    ("strategy", Field::Word("STRATEGY")),
    ("to", Field::Each("TO")),
    ("shutdown", Field::Flag("SHUTDOWN")),
];

pub(super) const RESHARD: &Shape = &[
    ("slots", Field::Word("SLOTS")),
    ("ranges", Field::Word("RANGES")),
    ("from", Field::Each("FROM")),
    ("to", Field::Word("TO")),
];

pub(super) const REBALANCE: &Shape = &[
    ("weights", Field::Pairs("WEIGHT")),
    ("use_empty", Field::Flag("USEEMPTY")),
    ("threshold", Field::Word("THRESHOLD")),
    ("by", Field::Word("BY")),
];

pub(super) const FAILOVER: &Shape = &[
    ("node", Field::Bare),
    ("to", Field::Word("TO")),
    ("mode", Field::OneOf(&[("safe", &[]), ("force", &["FORCE"]), ("takeover", &["TAKEOVER"])])),
];

pub(super) const FIX: &Shape = &[("apply", Field::Word("APPLY")), ("slots", Field::Word("SLOT"))];

pub(super) const CREATE: &Shape = &[
    ("nodes", Field::Addresses),
    ("replicas", Field::Word("REPLICAS")),
    ("zones", Field::Pairs("ZONES")),
];

pub(super) const IMPORT: &Shape = &[
    ("from", Field::Word("FROM")),
    ("database", Field::Word("DB")),
    ("copy", Field::Flag("COPY")),
    ("replace", Field::Flag("REPLACE")),
];

const PACE: &Shape = &[("rate", Field::Bare), ("max_block_ms", Field::Word("MAXBLOCK"))];

pub(super) const BACKUP: &Shape = &[("folder", Field::Bare)];

/// Reads an object; an empty body is one without fields.
pub(super) fn object(body: &[u8]) -> Result<Fields, Complaint> {
    if body.is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(bad("the body is no object")),
        Err(error) => Err(bad(format!("the body is no JSON: {error}"))),
    }
}

/// The value of a field that is the only one.
pub(super) fn only(name: &str, body: &[u8]) -> Result<String, Complaint> {
    let mut body = object(body)?;
    match (body.remove(name), body.is_empty()) {
        (Some(value), true) => text(name, &value),
        _ => Err(bad(format!("the body has the field {name}, and no other"))),
    }
}

/// The words for how fast a job may be.
pub(super) fn pace(body: &[u8]) -> Result<Vec<String>, Complaint> {
    let (mut body, mut words) = (object(body)?, Vec::new());
    for (name, field) in PACE {
        if let Some(value) = body.remove(*name) {
            field.say(name, &value, &mut words)?;
        }
    }
    match (body.keys().next(), words.is_empty()) {
        (Some(name), _) => Err(unknown(name)),
        (None, true) => Err(bad("rate or max_block_ms is missing")),
        (None, false) => Ok(words),
    }
}

/// The words for an object, in the order of the shape. All fields of movements may be given too.
pub(super) fn words(shape: &Shape, mut body: Fields) -> Result<Vec<String>, Complaint> {
    let mut words = Vec::new();
    for (name, field) in shape.iter().chain(MOVING) {
        match body.remove(*name) {
            None | Some(Value::Null) => {
                if matches!(field, Field::Bare) {
                    return Err(bad(format!("{name} is missing")));
                }
            }
            Some(value) => field.say(name, &value, &mut words)?,
        }
    }
    match body.keys().next() {
        Some(name) => Err(unknown(name)),
        None => Ok(words),
    }
}

/// Adds what a query says, for methods that have no body. What is true or false there is 1 or 0.
pub(super) fn with_query(
    shape: &Shape,
    mut fields: Fields,
    query: BTreeMap<String, String>,
) -> Result<Fields, Complaint> {
    for (name, text) in query {
        let field = shape.iter().chain(MOVING).find(|(known, _)| *known == name);
        let value = match field {
            Some((_, Field::Flag(_) | Field::Choice(_))) => match text.as_str() {
                "0" => false.into(),
                "1" => true.into(),
                _ => return Err(bad(format!("{name} is 0 or 1"))),
            },
            _ => text.into(),
        };
        fields.insert(name, value);
    }
    Ok(fields)
}

/// Complains of what is left of a query.
pub(super) fn nothing(query: &BTreeMap<String, String>) -> Result<(), Complaint> {
    query.keys().next().map_or(Ok(()), |name| Err(unknown(name)))
}

fn unknown(name: &str) -> Complaint {
    bad(format!("there is no field {name:?} here"))
}

impl Field {
    fn say(self, name: &str, value: &Value, words: &mut Vec<String>) -> Result<(), Complaint> {
        let mut put = |word: &str, value: String| words.extend([word.to_owned(), value]);
        match (self, value) {
            (Self::Bare, value) => words.push(text(name, value)?),
            (Self::Word(word), value) => put(word, text(name, value)?),
            (Self::Flag(word), Value::Bool(is_set)) => {
                words.extend(is_set.then(|| word.to_owned()));
            }
            (Self::Choice(word), Value::Bool(is_set)) => {
                put(word, if *is_set { "yes" } else { "no" }.to_owned());
            }
            (Self::Addresses, Value::Array(all)) => {
                for value in all {
                    let address = text(name, value)?;
                    if !address.contains(':') {
                        // Else it might be taken for a word.
                        return Err(bad(format!("{name}: {address:?} is no address")));
                    }
                    words.push(address);
                }
            }
            (Self::Each(word), Value::Array(all)) => {
                for value in all {
                    put(word, text(name, value)?);
                }
            }
            (Self::Each(word), Value::String(one)) => put(word, one.clone()),
            (Self::Pairs(word), Value::Object(all)) => {
                for (key, value) in all {
                    put(word, format!("{key}={}", text(name, value)?));
                }
            }
            (Self::OneOf(all), Value::String(given)) => {
                let found = all.iter().find(|(value, _)| value == given);
                let (_, said) =
                    found.ok_or_else(|| bad(format!("{name}: {given:?} is not known")))?;
                words.extend(said.iter().map(|word| (*word).to_owned()));
            }
            (Self::Flag(_) | Self::Choice(_), _) => {
                return Err(bad(format!("{name} is true or false")));
            }
            (Self::Each(_) | Self::Addresses, _) => return Err(bad(format!("{name} is an array"))),
            (Self::Pairs(_), _) => return Err(bad(format!("{name} is an object"))),
            (Self::OneOf(_), _) => return Err(bad(format!("{name} is a string"))),
        }
        Ok(())
    }
}

fn text(name: &str, value: &Value) -> Result<String, Complaint> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(bad(format!("{name} is a string or a number"))),
    }
}

fn bad(text: impl Into<String>) -> Complaint {
    Complaint::BadArg(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(shape: &Shape, body: &str, expected: &str) {
        let said = object(body.as_bytes()).and_then(|body| words(shape, body));
        let said = said.map_or_else(|error| error.to_string(), |words| words.join(" "));
        assert_eq!(said, expected, "{body}");
    }

    #[test]
    fn fields_are_said_in_words() {
        check(ADD_NODE, r#"{"addr":"h:1"}"#, "h:1");
        check(
            ADD_NODE,
            r#"{"rebalance":false,"addr":"h:1","role":"master","rate":5}"#,
            "h:1 REBALANCE no RATE 5",
        );
        check(ADD_NODE, r#"{"addr":"h:1","role":"replica"}"#, "h:1 REPLICA");
        check(ADD_NODE, r#"{"addr":"h:1","master_id":"a"}"#, "h:1 REPLICAOF a");
        check(
            ADD_NODE,
            r#"{"addr":"h:1","replicas":["h:2","h:3"],"weight":0.5,"wait_replicas":1}"#,
            "h:1 WEIGHT 0.5 WITH h:2 WITH h:3 WAITREPLICAS 1",
        );
        check(FIX, r#"{"slots":"1-3,7","sync":true,"timeout_ms":5}"#, "SLOT 1-3,7 SYNC TIMEOUT 5");
        check(REBALANCE, r#"{"by":"keys","sync":false}"#, "BY keys");
        check(RESHARD, r#"{"ranges":"1-3","to":"c"}"#, "RANGES 1-3 TO c");
        check(RESHARD, r#"{"slots":5,"from":["a","b"],"to":"c"}"#, "SLOTS 5 FROM a FROM b TO c");
        check(
            REBALANCE,
            r#"{"weights":{"a":2,"b":0.5},"use_empty":true,"threshold":null}"#,
            "WEIGHT a=2 WEIGHT b=0.5 USEEMPTY",
        );
        check(REBALANCE, "", "");
        check(CREATE, r#"{"nodes":["h:1","h:2"],"replicas":1}"#, "h:1 h:2 REPLICAS 1");
        check(
            CREATE,
            r#"{"nodes":["h:1"],"zones":{"h:1":"a","h:2":"b"}}"#,
            "h:1 ZONES h:1=a ZONES h:2=b",
        );
        check(CREATE, r#"{"nodes":["DRYRUN"]}"#, "BADARG nodes: \"DRYRUN\" is no address");
        check(
            IMPORT,
            r#"{"copy":true,"database":3,"from":"redis://h:1"}"#,
            "FROM redis://h:1 DB 3 COPY",
        );
        check(BACKUP, r#"{"folder":"/a"}"#, "/a");
        check(FAILOVER, r#"{"node":"a","mode":"force","force":["x"]}"#, "a FORCE FORCE x");
    }

    #[test]
    fn a_pace_has_one_or_both() {
        let check = |body: &str, expected: &str| {
            let said = pace(body.as_bytes());
            let said = said.map_or_else(|error| error.to_string(), |words| words.join(" "));
            assert_eq!(said, expected, "{body}");
        };
        check(r#"{"rate":5}"#, "5");
        check(r#"{"max_block_ms":3,"rate":"8MiB/s"}"#, "8MiB/s MAXBLOCK 3");
        check(r#"{"max_block_ms":3}"#, "MAXBLOCK 3");
        check("{}", "BADARG rate or max_block_ms is missing");
        check(r#"{"rates":3}"#, "BADARG there is no field \"rates\" here");
    }

    #[test]
    fn a_query_says_the_same() {
        let check = |said: &[(&str, &str)], expected: &str| {
            let query = said.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
            let fields = with_query(REMOVE_NODE, Fields::new(), query.collect());
            let said = fields.and_then(|fields| words(REMOVE_NODE, fields));
            let said = said.map_or_else(|error| error.to_string(), |words| words.join(" "));
            assert_eq!(said, expected);
        };
        check(&[("shutdown", "1"), ("to", "a,b"), ("sync", "1")], "TO a,b SHUTDOWN SYNC");
        check(&[("shutdown", "0"), ("strategy", "drain")], "STRATEGY drain");
        check(&[("shutdown", "yes")], "BADARG shutdown is 0 or 1");
        check(&[("slot", "1")], "BADARG there is no field \"slot\" here");
    }

    #[test]
    fn what_is_wrong_is_told() {
        check(REBALANCE, "[]", "BADARG the body is no object");
        check(
            REBALANCE,
            "{",
            "BADARG the body is no JSON: EOF while parsing an object at line 1 column 1",
        );
        check(ADD_NODE, "{}", "BADARG addr is missing");
        check(ADD_NODE, r#"{"addr":["h:1"]}"#, "BADARG addr is a string or a number");
        check(ADD_NODE, r#"{"addr":"h:1","role":"x"}"#, "BADARG role: \"x\" is not known");
        check(ADD_NODE, r#"{"addr":"h:1","role":1}"#, "BADARG role is a string");
        check(ADD_NODE, r#"{"addr":"h:1","rebalance":"no"}"#, "BADARG rebalance is true or false");
        check(REBALANCE, r#"{"weights":[]}"#, "BADARG weights is an object");
        check(RESHARD, r#"{"from":1}"#, "BADARG from is an array");
        check(RESHARD, r#"{"slot":5}"#, "BADARG there is no field \"slot\" here");
    }
}
