//! Glob patterns as the server matches them. The same input, the same answer; never takes exponential time.

/// Matches a glob pattern as the server does: `*`, `?`, `[a-z]`, `[^a]`, `\` escapes. On a mismatch
/// it goes back to the last `*` alone, so time is at most the product of the lengths.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, t));
            p += 1;
        } else if let Some(used) = matches_one(&pattern[p..], text[t]) {
            (p, t) = (p + used, t + 1);
        } else if let Some((behind, from)) = star {
            star = Some((behind, from + 1));
            (p, t) = (behind, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

/// Whether the first element of the pattern matches a byte, and how long the element is.
fn matches_one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'[', rest @ ..] => {
            let end = rest.iter().skip(1).position(|b| *b == b']')? + 1;
            in_class(&rest[..end], byte).then_some(end + 2)
        }
        [b'\\', escaped, ..] => (*escaped == byte).then_some(2),
        [plain, ..] => (*plain == byte).then_some(1),
        [] => None,
    }
}

fn in_class(class: &[u8], byte: u8) -> bool {
    let (negated, class) = class.strip_prefix(b"^").map_or((false, class), |class| (true, class));
    let single = class.contains(&byte);
    let range = class.windows(3).any(|w| w[1] == b'-' && (w[0]..=w[2]).contains(&byte));
    (single || range) != negated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        let check = |pattern: &str, text: &str, expected| {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        };
        check("*", "", true);
        check("max*", "maxmemory", true);
        check("max*", "MAXMEMORY", false);
        check("*mem*y", "maxmemory-policy", true);
        check("*mem*z", "maxmemory-policy", false);
        check("s?ve", "save", true);
        check("s[a-c]ve", "save", true);
        check("s[^a]ve", "save", false);
        check("s[", "s[", false);
        check("\\*", "*", true);
        check("", "x", false);
        check(&"*?".repeat(1 << 16), "port", false);
    }
}
