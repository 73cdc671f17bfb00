//! One line of `CLUSTER NODES`, with all that it says:
//! `<id> <ip:port@bus[,hostname[,…]]> <flags> <primary> <ping> <pong> <epoch> <link> <slot> …`. Pure.

use serde::Serialize;

use crate::cluster::{Address, NodeId, Slot, Slots};

/// What one node says of another, or of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Name of the node.
    pub id: NodeId,
    /// Where clients reach it; `None` if whoever says this does not know.
    pub address: Option<Address>,
    /// Where the other nodes reach it, on the same host.
    pub bus_port: Option<u16>,
    /// The host name it announces.
    pub hostname: Option<String>,
    /// As the node writes them: `myself`, `master`, `slave`, `fail?`, `fail`, `handshake`, `noaddr`, …
    pub flags: Vec<String>,
    /// The primary it replicates.
    pub primary: Option<NodeId>,
    /// Its config epoch.
    pub epoch: u64,
    /// Whether there is a link to it.
    pub linked: bool,
    /// The slots it owns.
    pub slots: Slots,
    /// Slots it gives away, and to whom. Told of itself only.
    pub migrating: Vec<(Slot, NodeId)>,
    /// Slots it takes in, and from whom. Told of itself only.
    pub importing: Vec<(Slot, NodeId)>,
}

impl Line {
    /// Where the node is, or who it is if that is not known.
    pub fn place(&self) -> String {
        self.address.as_ref().map_or_else(|| self.id.to_string(), ToString::to_string)
    }

    /// Reads one line; `from` is where it was asked for, and stands in for a host that the node does not know.
    pub fn parse(text: &str, from: &Address) -> Option<Self> {
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let [id, place, flags, primary, _ping, _pong, epoch, link, slots @ ..] = fields.as_slice()
        else {
            return None;
        };
        let (place, mut names) = (place.split(',').next()?, place.split(',').skip(1));
        let (address, bus_port) = place.rsplit_once('@').unwrap_or((place, ""));
        Some(Self {
            id: NodeId((*id).into()),
            address: Address::parse(address, Some(from)),
            bus_port: bus_port.parse().ok().filter(|port| *port != 0),
            hostname: names
                .next()
                .filter(|name| !name.is_empty() && !name.contains('='))
                .map(str::to_owned),
            flags: flags.split(',').map(str::to_owned).collect(),
            primary: (*primary != "-").then(|| NodeId((*primary).into())),
            epoch: epoch.parse().unwrap_or(0),
            linked: *link == "connected",
            slots: slots.iter().filter_map(|word| word.parse::<Slots>().ok()).flatten().collect(),
            migrating: slots.iter().filter_map(|word| open(word, "->-")).collect(),
            importing: slots.iter().filter_map(|word| open(word, "-<-")).collect(),
        })
    }

    /// Whether it has this flag.
    pub fn is(&self, flag: &str) -> bool {
        self.flags.iter().any(|have| have == flag)
    }

    /// Whether it follows a primary.
    pub fn is_replica(&self) -> bool {
        self.is("slave")
    }

    /// Whether whoever says this can talk to the node and does not doubt it.
    pub fn is_sound(&self) -> bool {
        self.linked && !["fail", "fail?", "handshake", "noaddr"].iter().any(|flag| self.is(flag))
    }
}

/// `[slot->-id]` is on its way to that node, `[slot-<-id]` on its way from it.
fn open(word: &str, arrow: &str) -> Option<(Slot, NodeId)> {
    let (slot, id) = word.strip_prefix('[')?.strip_suffix(']')?.split_once(arrow)?;
    Some((Slot::new(slot.parse().ok()?)?, NodeId(id.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        Line::parse(text, &Address::parse("10.0.0.9:7000", None).unwrap()).unwrap()
    }

    #[test]
    fn every_field_arrives() {
        let line = line(
            "aa 10.0.0.1:7001@17001,host-a,shard-id=x myself,master - 0 5 7 connected 0-5 9 [8->-bb] [7-<-cc]",
        );
        assert_eq!(line.address.as_ref().unwrap().to_string(), "10.0.0.1:7001");
        assert_eq!((line.bus_port, line.hostname.as_deref()), (Some(17001), Some("host-a")));
        assert_eq!((line.epoch, line.linked, line.is_replica()), (7, true, false));
        assert_eq!(line.slots.to_string(), "0-5,9");
        assert_eq!(line.migrating, [(Slot::new(8).unwrap(), NodeId("bb".into()))]);
        assert_eq!(line.importing, [(Slot::new(7).unwrap(), NodeId("cc".into()))]);
        assert!(line.is_sound());
    }

    #[test]
    fn hosts_that_are_not_known() {
        let check = |place: &str, address: Option<&str>, bus| {
            let line = line(&format!("aa {place} slave bb 0 5 7 connected"));
            assert_eq!(line.address.map(|a| a.to_string()).as_deref(), address, "{place}");
            assert_eq!((line.bus_port, line.hostname), (bus, None), "{place}");
        };
        check(":7001@17001", Some("10.0.0.9:7001"), Some(17001));
        check(":0@0", None, None);
        check("::1:7001@17001", Some("::1:7001"), Some(17001));
        check("10.0.0.1:7001", Some("10.0.0.1:7001"), None);
        check("10.0.0.1:7001@17001,", Some("10.0.0.1:7001"), Some(17001));
        check("10.0.0.1:7001@17001,shard-id=x", Some("10.0.0.1:7001"), Some(17001));
    }

    #[test]
    fn doubts() {
        let sound = |rest: &str| line(&format!("aa 10.0.0.1:7001@17001 {rest}")).is_sound();
        assert!(sound("slave bb 0 5 7 connected"));
        for rest in ["master,fail? - 0 5 7 connected", "master - 0 5 7 disconnected"] {
            assert!(!sound(rest), "{rest}");
        }
        assert!(
            Line::parse("aa 10.0.0.1:7001@17001", &Address::parse("a:1", None).unwrap()).is_none()
        );
    }
}
