//! What `INFO` and `CLUSTER INFO` answer: lines of `name:value`. Pure.

/// The text of such an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info(pub String);

impl Info {
    /// The value behind a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim_end)
    }

    /// The value behind a name, if it is a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    /// Number of keys of each database that has some.
    pub fn databases(&self) -> Vec<(u32, u64)> {
        let lines = self.0.lines().filter_map(|line| line.strip_prefix("db")?.split_once(":keys="));
        lines
            .filter_map(|(db, rest)| {
                Some((db.parse().ok()?, rest.split(',').next()?.parse().ok()?))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_behind_names() {
        let info = Info(
            "# Server\r\nredis_version:7.0.15\r\nmaxmemory:0\r\nmaxmemory_human:0B\r\n\
                         db0:keys=8589934592,expires=0,avg_ttl=0\r\ndb3:keys=1,expires=0\r\n"
                .into(),
        );
        assert_eq!(info.get("redis_version"), Some("7.0.15"));
        assert_eq!(info.number("maxmemory"), Some(0));
        assert_eq!(info.number("redis_version"), None);
        assert_eq!(info.get("nothing"), None);
        assert_eq!(info.databases(), [(0, 1 << 33), (3, 1)]);
    }
}
