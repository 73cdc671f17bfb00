//! What an error reply of a node tells about where, or when, the request can run.

/// What a node said of a request, as far as the proxy acts on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// The reply is the client's.
    Final,
    /// `MOVED slot address`: the slot belongs to another node. An empty host means the host that said so.
    Moved(&'a str),
    /// `ASK slot address`: this once the other node has it.
    Ask(&'a str),
    /// `TRYAGAIN`: some keys of the request are on either side of a migration.
    TryAgain,
    /// `CLUSTERDOWN`, `LOADING`, `MASTERDOWN`: the node cannot serve for now.
    NotNow,
    /// `READONLY`: the node is no primary any more.
    Demoted,
}

/// Reads the verdict off a whole reply. All verdicts but `Final` mean that the request did not run.
pub fn verdict(reply: &[u8]) -> Verdict<'_> {
    let [b'-', text @ .., b'\r', b'\n'] = reply else { return Verdict::Final };
    let (code, rest) = match memchr::memchr(b' ', text) {
        Some(blank) => (&text[..blank], &text[blank + 1..]),
        None => (text, &[][..]),
    };
    match code {
        // One that cannot be read is a redirect all the same, to nowhere.
        b"MOVED" => Verdict::Moved(address(rest).unwrap_or("")),
        b"ASK" => Verdict::Ask(address(rest).unwrap_or("")),
        b"TRYAGAIN" => Verdict::TryAgain,
        b"CLUSTERDOWN" | b"LOADING" | b"MASTERDOWN" => Verdict::NotNow,
        b"READONLY" => Verdict::Demoted,
        _ => Verdict::Final,
    }
}

/// The same of a reply that a script may have made up (`redis.error_reply('TRYAGAIN later')`): a script's own words are the
/// client's. What the server says by itself it says in these words.
pub fn scripted_verdict(reply: &[u8]) -> Verdict<'_> {
    const WORDS: [&[u8]; 9] = [
        b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n",
        b"-CLUSTERDOWN The cluster is down\r\n",
        b"-CLUSTERDOWN The cluster is down and only accepts read commands\r\n",
        b"-CLUSTERDOWN Hash slot not served\r\n",
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"-LOADING Valkey is loading the dataset in memory\r\n",
        b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
        b"-MASTERDOWN Link with PRIMARY is down and replica-serve-stale-data is set to 'no'.\r\n",
        b"-READONLY You can't write against a read only replica.\r\n",
    ];
    match verdict(reply) {
        Verdict::Moved("") | Verdict::Ask("") => Verdict::Final,
        verdict @ (Verdict::Moved(_) | Verdict::Ask(_)) => verdict,
        verdict if WORDS.contains(&reply) => verdict,
        _ => Verdict::Final,
    }
}

/// What `EXEC` says if the node refused a command of the transaction with this error. To the client all were queued, so that
/// it hears the reason only now: in the words of a server that has come to refuse it since.
pub fn aborted(exec: &[u8], error: &[u8]) -> Vec<u8> {
    if !exec.starts_with(b"-EXECABORT ") {
        return exec.to_vec();
    }
    [b"-EXECABORT Transaction discarded because of: ", error.strip_prefix(b"-").unwrap_or(error)]
        .concat()
}

/// The address in `slot host:port`.
fn address(rest: &[u8]) -> Option<&str> {
    let (slot, address) = std::str::from_utf8(rest).ok()?.split_once(' ')?;
    let slot_is_number = slot.bytes().all(|b| b.is_ascii_digit());
    let port = address.rsplit_once(':')?.1;
    (slot_is_number && port.parse::<u16>().is_ok()).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        let check =
            |reply: &str, expected| assert_eq!(verdict(reply.as_bytes()), expected, "{reply:?}");
        check("-MOVED 3999 127.0.0.1:6381\r\n", Verdict::Moved("127.0.0.1:6381"));
        check("-MOVED 3999 :6381\r\n", Verdict::Moved(":6381"));
        check("-MOVED 3999 ?:6381\r\n", Verdict::Moved("?:6381"));
        check("-MOVED 3999 ::1:6381\r\n", Verdict::Moved("::1:6381"));
        check("-ASK 1 host.example:7000\r\n", Verdict::Ask("host.example:7000"));
        check("-TRYAGAIN Multiple keys request during rehashing of slot\r\n", Verdict::TryAgain);
        check("-CLUSTERDOWN The cluster is down\r\n", Verdict::NotNow);
        check("-LOADING Redis is loading the dataset in memory\r\n", Verdict::NotNow);
        check("-READONLY You can't write against a read only replica.\r\n", Verdict::Demoted);
        check("-MOVED nonsense\r\n", Verdict::Moved(""));
        check("-ERR x\r\n", Verdict::Final);
        check("+MOVED 1 a:1\r\n", Verdict::Final);
        let check = |reply: &str, expected| {
            assert_eq!(scripted_verdict(reply.as_bytes()), expected, "{reply:?}");
        };
        check("-TRYAGAIN later\r\n", Verdict::Final);
        check("-TRYAGAIN Multiple keys request during rehashing of slot\r\n", Verdict::TryAgain);
        check("-MOVED elsewhere\r\n", Verdict::Final);
        check("-MOVED 3999 127.0.0.1:6381\r\n", Verdict::Moved("127.0.0.1:6381"));
        check("-LOADING Redis is loading the dataset in memory\r\n", Verdict::NotNow);
        check("-MOVEDX 1 a:1\r\n", Verdict::Final);
    }

    #[test]
    fn aborted_transactions_tell_why() {
        let check = |exec: &str, error: &str, expected: &str| {
            let said = aborted(exec.as_bytes(), error.as_bytes());
            assert_eq!(String::from_utf8_lossy(&said), expected);
        };
        let previous = "-EXECABORT Transaction discarded because of previous errors.\r\n";
        let why = "-EXECABORT Transaction discarded because of: OOM no memory\r\n";
        check(previous, "-OOM no memory\r\n", why);
        check("-ERR x\r\n", "-OOM no memory\r\n", "-ERR x\r\n");
    }
}
