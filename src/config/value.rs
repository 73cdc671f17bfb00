//! How single values are read: durations, sizes, numbers, addresses. An error says what would be allowed.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::keys::Parsed;
use crate::cluster::Address;
use crate::observe::log::Filter;

/// Units of sizes, as the server's configuration has them.
const UNITS: &[(&str, u64)] = &[
    ("gb", 1 << 30),
    ("mb", 1 << 20),
    ("kb", 1 << 10),
    ("g", 1_000_000_000),
    ("m", 1_000_000),
    ("k", 1000),
    ("b", 1),
    ("", 1),
];

/// Reads a node's address, `host:port`.
pub fn seed(text: &str) -> Result<Address, String> {
    Address::parse(text, None).ok_or_else(|| format!("{text:?} is not a node's address"))
}

/// Reads an address to listen on, `host:port`. Port 0 takes any free one.
fn endpoint(text: &str) -> Result<String, String> {
    let parts = text.rsplit_once(':');
    let fits = parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if fits { Ok(text.to_owned()) } else { Err("must be \"host:port\"".to_owned()) }
}

/// Reads an address to listen on, or `off`.
pub fn endpoint_or_off(text: &str) -> Result<Option<String>, String> {
    if text == "off" {
        return Ok(None);
    }
    endpoint(text).map(Some).map_err(|_| "must be \"host:port\" or \"off\"".to_owned())
}

/// Reads a number of workers, or `auto` for one per core.
pub fn workers(text: &str) -> Result<Option<usize>, String> {
    match text.parse() {
        Ok(workers @ 1..=1024) => Ok(Some(workers)),
        Err(_) if text == "auto" => Ok(None),
        _ => Err("must be \"auto\" or a whole number between 1 and 1024".to_owned()),
    }
}

pub(super) fn worker_count(value: &DeValue<'_>) -> Parsed<Option<usize>> {
    match (value.as_str(), integer(value)) {
        (Some("auto"), _) => Ok(None),
        (_, number) => workers(&number.map_or(String::new(), |number| number.to_string())),
    }
}

pub(super) fn seeds(value: &DeValue<'_>) -> Parsed<Vec<Address>> {
    const ALLOWED: &str = "must be a list of \"host:port\"";
    let list = value.as_array().ok_or(ALLOWED)?;
    let address = |value: &toml::Spanned<DeValue<'_>>| {
        seed(value.get_ref().as_str().ok_or(ALLOWED)?).map_err(|what| format!("{what}; {ALLOWED}"))
    };
    list.iter().map(address).collect()
}

pub(super) fn address_or_off(value: &DeValue<'_>) -> Parsed<Option<String>> {
    endpoint_or_off(value.as_str().unwrap_or_default())
}

/// A text; an empty one is none.
pub(super) fn text(value: &DeValue<'_>) -> Parsed<Option<String>> {
    let text = value.as_str().ok_or("must be a text in quotes")?;
    Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
}

/// A list of texts.
pub(super) fn texts(value: &DeValue<'_>) -> Parsed<Vec<String>> {
    const ALLOWED: &str = "must be a list of texts in quotes";
    let text = |value: &toml::Spanned<DeValue<'_>>| value.get_ref().as_str().map(str::to_owned);
    let list = value.as_array().ok_or(ALLOWED)?;
    list.iter().map(text).collect::<Option<_>>().ok_or_else(|| ALLOWED.to_owned())
}

pub(super) fn path(value: &DeValue<'_>) -> Parsed<Option<PathBuf>> {
    Ok(text(value)?.map(PathBuf::from))
}

pub(super) fn log_filter(value: &DeValue<'_>) -> Parsed<Filter> {
    Filter::parse(value.as_str().unwrap_or_default())
}

pub(super) fn switch(value: &DeValue<'_>) -> Parsed<bool> {
    match value {
        DeValue::Boolean(on) => Ok(*on),
        _ => Err("must be true or false".to_owned()),
    }
}

pub(super) fn choice<T: Copy>(value: &DeValue<'_>, choices: &[(&str, T)]) -> Parsed<T> {
    let chosen = choices.iter().find(|(name, _)| value.as_str() == Some(name));
    chosen.map(|(_, choice)| *choice).ok_or_else(|| {
        let mut names: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let last = names.pop().unwrap_or_default();
        format!("must be {} or {last}", names.join(", "))
    })
}

pub(super) fn count(value: &DeValue<'_>, allowed: RangeInclusive<usize>) -> Parsed<usize> {
    integer(value)
        .and_then(|number| usize::try_from(number).ok())
        .filter(|number| allowed.contains(number))
        .ok_or_else(|| {
            format!("must be a whole number between {} and {}", allowed.start(), allowed.end())
        })
}

/// A text such as `"16kb"`, or a number of bytes.
pub(super) fn size(value: &DeValue<'_>, allowed: RangeInclusive<u64>) -> Parsed<usize> {
    let bytes = value.as_str().map_or_else(|| integer(value), bytes);
    bytes
        .filter(|bytes| allowed.contains(bytes))
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or_else(|| {
            format!(
                "must be a number of bytes or a size such as \"16kb\" or \"512mb\", between {} and {}",
                show_bytes(*allowed.start()),
                show_bytes(*allowed.end())
            )
        })
}

fn bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let (unit, factor) = UNITS.iter().find(|(unit, _)| text.ends_with(unit))?;
    let number = text.strip_suffix(unit)?.trim_end();
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn show_bytes(bytes: u64) -> String {
    let fitting = UNITS.iter().find(|(unit, factor)| {
        factor.is_power_of_two()
            && bytes >= *factor
            && bytes.is_multiple_of(*factor)
            && unit.len() != 1
    });
    fitting.map_or(bytes.to_string(), |(unit, factor)| format!("{}{unit}", bytes / factor))
}

/// A text such as `"250ms"`, of a length between two numbers of milliseconds.
pub(super) fn duration(value: &DeValue<'_>, allowed_ms: RangeInclusive<u64>) -> Parsed<Duration> {
    let (least, most) =
        (Duration::from_millis(*allowed_ms.start()), Duration::from_millis(*allowed_ms.end()));
    value
        .as_str()
        .and_then(|text| humantime::parse_duration(text).ok())
        .filter(|duration| (least..=most).contains(duration))
        .ok_or_else(|| {
            format!(
                "must be a duration such as \"5s\" or \"250ms\", between {} and {}",
                humantime::format_duration(least),
                humantime::format_duration(most)
            )
        })
}

fn integer(value: &DeValue<'_>) -> Option<u64> {
    let integer = value.as_integer()?;
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let check = |text, expected| assert_eq!(bytes(text), expected, "{text}");
        check("0", Some(0));
        check("16", Some(16));
        check("16b", Some(16));
        check("1k", Some(1000));
        check("1kb", Some(1024));
        check("512MB", Some(512 << 20));
        check("2 gb", Some(2 << 30));
        check("gb", None);
        check("-1kb", None);
        check("1.5gb", None);
        check("99999999999999999999", None);
        check("99999999999gb", None);
        check("", None);
    }

    #[test]
    fn sizes_are_shown_as_they_are_written() {
        let check = |bytes, expected: &str| assert_eq!(show_bytes(bytes), expected);
        check(0, "0");
        check(1000, "1000");
        check(64 << 10, "64kb");
        check(3 << 30, "3gb");
    }

    #[test]
    fn endpoints() {
        let check = |text, fits| assert_eq!(endpoint(text).is_ok(), fits, "{text}");
        check("0.0.0.0:6380", true);
        check("[::]:0", true);
        check("localhost:6380", true);
        check(":6380", false);
        check("6380", false);
        check("host:65536", false);
        assert_eq!(endpoint_or_off("off"), Ok(None));
        assert_eq!(workers("auto"), Ok(None));
        assert_eq!(workers("2"), Ok(Some(2)));
        assert!(workers("0").is_err());
    }
}
