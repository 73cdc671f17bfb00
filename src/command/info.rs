//! `INFO`: the proxy's own text with the nodes' numbers added in.
//!
//! The proxy's text names, as `{name}`, the fields whose value is the sum over the primaries, and may end with a keyspace
//! line `{db0}`. `{any name}` is 1 if the sum is not 0, and `{all name}` is `ok` unless a node says `err`. A node's field that is
//! missing counts as zero. The names of `LISTS` stand for as many lines as there are.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;

/// Sections whose lines differ from node to node, and how each line of them begins.
const LISTS: [(&str, &str); 3] = [
    ("commandstats", "cmdstat_"),
    ("errorstats", "errorstat_"),
    ("latencystats", "latency_percentiles_usec_"),
];

/// Fills the placeholders of `own` with the sums over the nodes' `INFO` replies.
pub fn merge<'a>(own: &str, replies: impl Iterator<Item = &'a [u8]>) -> String {
    let mut sums: HashMap<&str, u64> = HashMap::new();
    let mut keys = [0u64; 3];
    let mut lines: BTreeMap<&str, Line<'_>> = BTreeMap::new();
    let mut failed = HashSet::new();
    for reply in replies {
        for line in std::str::from_utf8(reply).unwrap_or("").lines() {
            let Some((name, value)) = line.split_once(':') else { continue };
            if name == "db0" {
                add_keyspace(&mut keys, value);
            } else if LISTS.iter().any(|(_, start)| name.starts_with(start)) {
                lines.entry(name).or_default().add(value);
            } else if let Ok(number) = value.parse::<u64>() {
                let sum = sums.entry(name).or_default();
                *sum = sum.saturating_add(number);
            } else if value == "err" {
                failed.insert(name);
            }
        }
    }
    let [count, expires, ttl] = keys;
    let db0 = match ttl.checked_div(count) {
        None => String::new(),
        Some(mean_ttl) => format!("db0:keys={count},expires={expires},avg_ttl={mean_ttl}\r\n"),
    };
    let sum = |name: &str| sums.get(name).copied().unwrap_or(0);
    fill(own, |name| match name {
        "db0" => db0.clone(),
        name if let Some((_, start)) = LISTS.iter().find(|(list, _)| *list == name) => {
            let lines = lines.iter().filter(|(name, _)| name.starts_with(start));
            lines
                .fold(String::new(), |text, (name, line)| text + name + ":" + &line.text() + "\r\n")
        }
        name => match (name.split_once(' '), name.strip_suffix("_human")) {
            (Some(("any", field)), _) => sum(field).min(1).to_string(),
            (Some((_, field)), _) => if failed.contains(field) { "err" } else { "ok" }.to_owned(),
            (_, Some(field)) => human(sum(field)),
            _ => sum(name).to_string(),
        },
    })
}

/// The fields of a line such as `calls=2,usec=30,usec_per_call=15.00`.
#[derive(Default)]
struct Line<'a>(Vec<(&'a str, Figure)>);

#[derive(Clone, Copy)]
enum Figure {
    /// Added up.
    Count(u64),
    /// A measure of which the greatest is kept.
    Measure(f64),
}

impl<'a> Line<'a> {
    fn add(&mut self, fields: &'a str) {
        for (name, value) in fields.split(',').filter_map(|field| field.split_once('=')) {
            let figure = match value.parse() {
                Ok(count) => Figure::Count(count),
                Err(_) => Figure::Measure(value.parse().unwrap_or(0.0)),
            };
            match self.0.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known = known.with(figure),
                None => self.0.push((name, figure)),
            }
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (name, figure) in &self.0 {
            let comma = if text.is_empty() { "" } else { "," };
            // Writing to a string cannot fail.
            let _ = match figure {
                _ if *name == "usec_per_call" => write!(text, "{comma}{name}={:.2}", self.mean()),
                Figure::Count(count) => write!(text, "{comma}{name}={count}"),
                Figure::Measure(measure) => write!(text, "{comma}{name}={measure:.3}"),
            };
        }
        text
    }

    /// Microseconds of one call.
    #[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
    fn mean(&self) -> f64 {
        let count = |wanted| {
            let mut fields = self.0.iter();
            fields.find_map(|(name, figure)| match figure {
                Figure::Count(count) if *name == wanted => Some(*count as f64),
                _ => None,
            })
        };
        count("usec").unwrap_or(0.0) / count("calls").unwrap_or(1.0).max(1.0)
    }
}

impl Figure {
    fn with(self, other: Self) -> Self {
        match (self, other) {
            (Self::Count(a), Self::Count(b)) => Self::Count(a.saturating_add(b)),
            (Self::Measure(a), Self::Measure(b)) => Self::Measure(a.max(b)),
            (known, _) => known,
        }
    }
}

/// `keys=1,expires=0,avg_ttl=0`; the mean time to live is weighted by keys.
fn add_keyspace(sums: &mut [u64; 3], text: &str) {
    let mut fields =
        text.split(',').filter_map(|field| field.split_once('=')?.1.parse::<u64>().ok());
    let (keys, expires, ttl) =
        (fields.next().unwrap_or(0), fields.next().unwrap_or(0), fields.next().unwrap_or(0));
    sums[0] = sums[0].saturating_add(keys);
    sums[1] = sums[1].saturating_add(expires);
    sums[2] = sums[2].saturating_add(ttl.saturating_mul(keys));
}

fn fill(text: &str, value: impl Fn(&str) -> String) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, tail)) = rest.split_once('{') {
        let Some((name, behind)) = tail.split_once('}') else { break };
        out.push_str(before);
        out.push_str(&value(name));
        rest = behind;
    }
    out.push_str(rest);
    out
}

/// Bytes with one unit, as in Redis' `*_human` fields.
fn human(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
    let amount = bytes as f64;
    match bytes {
        0..1024 => format!("{bytes}B"),
        1024..1_048_576 => format!("{:.2}K", amount / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.2}M", amount / 1_048_576.0),
        _ => format!("{:.2}G", amount / 1_073_741_824.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_fill_the_own_text() {
        let a = b"$1\r\n# Memory\r\nused_memory:1000\r\n# Keyspace\r\ndb0:keys=3,expires=1,avg_ttl=100\r\n";
        let b = b"$1\r\nused_memory:1048\r\nrole:master\r\ndb0:keys=1,expires=0,avg_ttl=0\r\n";
        let own = "role:master\r\nused_memory:{used_memory}\r\nused_memory_human:{used_memory_human}\r\nx:{none}\r\n{db0}";
        let merged = merge(own, [&a[..], &b[..]].into_iter());
        assert_eq!(
            merged,
            "role:master\r\nused_memory:2048\r\nused_memory_human:2.00K\r\nx:0\r\ndb0:keys=4,expires=1,avg_ttl=75\r\n"
        );
    }

    #[test]
    fn what_is_true_of_any_or_all() {
        let (a, b) = (&b"saves:1\r\nlast:ok\r\nother:err\r\n"[..], &b"saves:1\r\nlast:ok\r\n"[..]);
        let own = "{any saves} {any nothing} {all last} {all other}";
        assert_eq!(merge(own, [a, b].into_iter()), "1 0 ok err");
    }

    #[test]
    fn lines_are_added_up_by_their_names() {
        let a = b"cmdstat_get:calls=3,usec=30,usec_per_call=10.00,failed_calls=1\r\nerrorstat_ERR:count=1\r\n";
        let b = b"cmdstat_get:calls=1,usec=15,usec_per_call=15.00,failed_calls=0\r\nerrorstat_OOM:count=2\r\n\
            latency_percentiles_usec_get:p50=1.003,p99.9=20.095\r\n";
        let own = "# C\r\n{commandstats}# E\r\n{errorstats}# L\r\n{latencystats}";
        assert_eq!(
            merge(own, [&a[..], &b[..]].into_iter()),
            "# C\r\ncmdstat_get:calls=4,usec=45,usec_per_call=11.25,failed_calls=1\r\n\
             # E\r\nerrorstat_ERR:count=1\r\nerrorstat_OOM:count=2\r\n\
             # L\r\nlatency_percentiles_usec_get:p50=1.003,p99.9=20.095\r\n"
        );
    }
}
