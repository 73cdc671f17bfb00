//! `INFO`: the proxy's own text with the nodes' numbers added in.
//!
//! The proxy's text names, as `{name}`, the fields whose value is the sum over the primaries, and may end with a keyspace
//! line `{db0}`. A node's field that is missing counts as zero.

use std::collections::HashMap;

/// Fills the placeholders of `own` with the sums over the nodes' `INFO` replies.
pub fn merge<'a>(own: &str, replies: impl Iterator<Item = &'a [u8]>) -> String {
    let mut sums: HashMap<&str, u64> = HashMap::new();
    let mut keys = [0u64; 3];
    for reply in replies {
        for line in std::str::from_utf8(reply).unwrap_or("").lines() {
            let Some((name, value)) = line.split_once(':') else { continue };
            if name == "db0" {
                add_keyspace(&mut keys, value);
            } else if let Ok(number) = value.parse::<u64>() {
                let sum = sums.entry(name).or_default();
                *sum = sum.saturating_add(number);
            }
        }
    }
    let [count, expires, ttl] = keys;
    let db0 = match ttl.checked_div(count) {
        None => String::new(),
        Some(mean_ttl) => format!("db0:keys={count},expires={expires},avg_ttl={mean_ttl}\r\n"),
    };
    fill(own, |name| match name {
        "db0" => db0.clone(),
        name => match name.strip_suffix("_human") {
            Some(field) => human(sums.get(field).copied().unwrap_or(0)),
            None => sums.get(name).copied().unwrap_or(0).to_string(),
        },
    })
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
}
