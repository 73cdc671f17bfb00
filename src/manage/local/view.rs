//! What the nodes say of themselves and of each other: parsed, compared, shown. Pure.

use std::fmt;
use std::path::PathBuf;

/// A node that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalNode {
    /// `host:port`.
    pub address: String,
    /// The port alone.
    pub port: u16,
    /// Its process.
    pub pid: u32,
    /// Its folder, with its log.
    pub dir: PathBuf,
    /// What it does.
    pub role: Role,
}

/// What a node does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Owns slots.
    Primary {
        /// As the node writes them: `0-5460,7000`.
        slots: String,
    },
    /// Follows a primary.
    Replica {
        /// Address of the primary.
        of: String,
    },
}

/// What was found of a node that should be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Runs and answers.
    Running(LocalNode),
    /// Runs, and does not answer.
    Silent {
        /// `host:port`.
        address: String,
        /// Its process.
        pid: u32,
    },
    /// Does not run.
    Stopped {
        /// `host:port`.
        address: String,
    },
}

/// All nodes of a local cluster; shown as a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// In order of their ports.
    pub nodes: Vec<Seen>,
    /// What keeps the cluster from being whole; `None` if every node runs and all say the same.
    pub fault: Option<String>,
}

impl Status {
    pub(super) fn new(nodes: Vec<Seen>, reports: &[Report]) -> Self {
        let absent = nodes.iter().find_map(|seen| match seen {
            Seen::Running(_) => None,
            Seen::Silent { address, .. } => Some(format!("{address} does not answer")),
            Seen::Stopped { address } => Some(format!("{address} does not run")),
        });
        let fault = absent.or_else(|| fault(reports));
        Self { nodes, fault }
    }
}

impl From<&[LocalNode]> for Status {
    fn from(nodes: &[LocalNode]) -> Self {
        Self { nodes: nodes.iter().cloned().map(Seen::Running).collect(), fault: None }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = ["ADDRESS", "ROLE", "SLOTS", "PID"].map(str::to_owned);
        let rows: Vec<_> =
            std::iter::once(header).chain(self.nodes.iter().map(Seen::row)).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let [address_width, role_width, slots_width] = [width(0), width(1), width(2)];
        for [address, role, slots, pid] in &rows {
            writeln!(
                f,
                "{address:address_width$}  {role:role_width$}  {slots:slots_width$}  {pid}"
            )?;
        }
        Ok(())
    }
}

impl Seen {
    fn row(&self) -> [String; 4] {
        match self {
            Self::Running(LocalNode { address, pid, role: Role::Primary { slots }, .. }) => {
                [address.clone(), "primary".into(), slots.clone(), pid.to_string()]
            }
            Self::Running(LocalNode { address, pid, role: Role::Replica { of }, .. }) => {
                [address.clone(), "replica".into(), format!("of {of}"), pid.to_string()]
            }
            Self::Silent { address, pid } => {
                [address.clone(), "silent".into(), "-".into(), pid.to_string()]
            }
            Self::Stopped { address } => {
                [address.clone(), "stopped".into(), "-".into(), "-".into()]
            }
        }
    }
}

/// One node's answers.
#[derive(Debug)]
pub(super) struct Report {
    /// Who answered.
    pub(super) address: String,
    /// `CLUSTER INFO`.
    pub(super) info: String,
    /// `CLUSTER NODES`.
    pub(super) nodes: String,
    /// `INFO replication`.
    pub(super) replication: String,
}

impl Report {
    /// The role that the node gives itself.
    pub(super) fn role(&self) -> Option<Role> {
        let own = lines(&self.nodes).find(|line| line.is("myself"))?;
        if own.is("slave") {
            let primary = lines(&self.nodes).find(|line| line.id == own.primary);
            let of = primary.map_or_else(|| own.primary.to_owned(), |line| line.address.to_owned());
            return Some(Role::Replica { of });
        }
        Some(Role::Primary { slots: own.slots().collect::<Vec<_>>().join(",") })
    }

    /// Number of nodes that this one knows by name.
    pub(super) fn known(&self) -> usize {
        lines(&self.nodes).filter(|line| !line.is("handshake")).count()
    }

    /// Who is where, owns what and follows whom, in an order and a form that is the same on every node.
    fn signature(&self) -> Vec<String> {
        let mut signature: Vec<_> = lines(&self.nodes).map(Line::signature).collect();
        signature.sort_unstable();
        signature
    }
}

/// What keeps the cluster from being whole, if anything does: the first fault found.
pub(super) fn fault(reports: &[Report]) -> Option<String> {
    let failing = reports.iter().find(|report| field(&report.info, "cluster_state") != Some("ok"));
    if let Some(Report { address, info, .. }) = failing {
        return Some(format!(
            "{address} says cluster_state:{}",
            field(info, "cluster_state").unwrap_or("?")
        ));
    }
    if let Some(doubt) = reports.iter().find_map(|report| doubt(report, reports)) {
        return Some(doubt);
    }
    let [first, others @ ..] = reports else { return None };
    let signature = first.signature();
    if let Some(other) = others.iter().find(|report| report.signature() != signature) {
        return Some(format!(
            "{} and {} know different nodes or owners of slots",
            first.address, other.address
        ));
    }
    let unlinked = |report: &&Report| {
        field(&report.replication, "master_link_status").is_some_and(|link| link != "up")
    };
    reports
        .iter()
        .find(unlinked)
        .map(|report| format!("replica {} has no link to its primary yet", report.address))
}

/// What one node holds against another of those that reported; nodes that were added by hand are not our concern.
fn doubt(report: &Report, reports: &[Report]) -> Option<String> {
    let ours = |line: &Line| reports.iter().any(|report| report.address == line.address);
    let line = lines(&report.nodes).find(|line| ours(line) && !line.is_trusted())?;
    Some(format!("{} sees {} as {} and {}", report.address, line.address, line.flags, line.link))
}

/// Value of a `name:value` line, as `INFO` and `CLUSTER INFO` are made of.
pub(super) fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim_end)
}

/// One line of `CLUSTER NODES`:
/// `<id> <ip:port@bus[,hostname]> <flags> <primary> <ping> <pong> <epoch> <link> <slot> …`.
#[derive(Clone, Copy)]
struct Line<'a> {
    id: &'a str,
    address: &'a str,
    flags: &'a str,
    primary: &'a str,
    epoch: &'a str,
    link: &'a str,
    /// Separated by blanks, with those being moved in brackets.
    rest: &'a str,
}

fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    text.lines().filter_map(Line::parse)
}

impl<'a> Line<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut words = text.splitn(9, ' ');
        let mut word = || words.next();
        let (id, address, flags, primary) = (word()?, word()?, word()?, word()?);
        let (_ping, _pong, epoch, link) = (word()?, word()?, word()?, word()?);
        let address = address.split('@').next()?;
        Some(Self {
            id,
            address,
            flags,
            primary,
            epoch,
            link,
            rest: words.next().unwrap_or_default(),
        })
    }

    fn is(&self, flag: &str) -> bool {
        self.flags.split(',').any(|word| word == flag)
    }

    fn is_trusted(&self) -> bool {
        self.link == "connected" && !["fail", "fail?", "handshake"].iter().any(|flag| self.is(flag))
    }

    fn slots(self) -> impl Iterator<Item = &'a str> {
        self.rest.split_ascii_whitespace().filter(|word| !word.starts_with('['))
    }

    fn signature(self) -> String {
        let Self { id, address, primary, .. } = self;
        let slots = self.slots().collect::<Vec<_>>().join(",");
        let role = if self.is("slave") { "replica" } else { "primary" };
        // The epoch of a node without slots decides nothing, and is told differently by different versions.
        let epoch = if slots.is_empty() { "-" } else { self.epoch };
        format!("{id} {address} {role} {primary} {epoch} {slots}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "aaa 127.0.0.1:1@10001,host myself,master - 0 0 1 connected 0-9 12 [13->-bbb]\n\
                       bbb 127.0.0.1:2@10002 master - 0 5 2 connected 14\n\
                       ccc 127.0.0.1:3@10003 slave aaa 0 5 1 connected\n";
    const TWO: &str = "bbb 127.0.0.1:2@10002 myself,master - 0 0 2 connected 14\n\
                       ccc 127.0.0.1:3@10003 slave aaa 0 7 3 connected\n\
                       aaa 127.0.0.1:1@10001 master - 0 7 1 connected 0-9 12\n";
    const THREE: &str = "ccc 127.0.0.1:3@10003 myself,slave aaa 0 0 3 connected\n\
                         aaa 127.0.0.1:1@10001 master - 0 7 1 connected 0-9 12\n\
                         bbb 127.0.0.1:2@10002 master - 0 5 2 connected 14\n";

    fn report(port: u16, nodes: &str) -> Report {
        let replication =
            if port == 3 { "role:slave\r\nmaster_link_status:up\r\n" } else { "role:master\r\n" };
        Report {
            address: format!("127.0.0.1:{port}"),
            info: "cluster_state:ok\r\ncluster_slots_assigned:16384\r\n".into(),
            nodes: nodes.into(),
            replication: replication.into(),
        }
    }

    fn whole() -> [Report; 3] {
        [report(1, ONE), report(2, TWO), report(3, THREE)]
    }

    #[test]
    fn finds_no_fault_where_all_say_the_same() {
        assert_eq!(fault(&whole()), None);
        assert_eq!(whole()[0].known(), 3);
    }

    #[test]
    fn names_the_first_fault() {
        let check = |change: fn(&mut [Report; 3]), expected: &str| {
            let mut reports = whole();
            change(&mut reports);
            assert_eq!(fault(&reports).as_deref(), Some(expected));
        };
        check(
            |all| all[1].info = "cluster_state:fail\r\n".into(),
            "127.0.0.1:2 says cluster_state:fail",
        );
        check(|all| all[1].info.clear(), "127.0.0.1:2 says cluster_state:?");
        check(
            |all| all[1].nodes = TWO.replace("3 connected", "3 disconnected"),
            "127.0.0.1:2 sees 127.0.0.1:3 as slave and disconnected",
        );
        check(
            |all| all[1].nodes = TWO.replace(" master - 0 7", " master,fail? - 0 7"),
            "127.0.0.1:2 sees 127.0.0.1:1 as master,fail? and connected",
        );
        let different = "127.0.0.1:1 and 127.0.0.1:3 know different nodes or owners of slots";
        check(|all| all[2].nodes = THREE.replace("0-9 12", "0-9"), different);
        check(|all| all[2].nodes = THREE.replace("slave aaa", "slave bbb"), different);
        check(|all| all[2].nodes = THREE.replace("0 5 2 connected", "0 5 9 connected"), different);
        check(|all| all[2].nodes = THREE.lines().take(2).collect::<Vec<_>>().join("\n"), different);
        check(
            |all| all[2].replication = "master_link_status:down\r\n".into(),
            "replica 127.0.0.1:3 has no link to its primary yet",
        );
    }

    #[test]
    fn a_stranger_that_fails_is_no_fault() {
        let stranger = "ddd 127.0.0.1:9@10009 master,fail - 0 0 0 disconnected\n";
        let with = |port, nodes: &str| report(port, &format!("{nodes}{stranger}"));
        assert_eq!(fault(&[with(1, ONE), with(2, TWO), with(3, THREE)]), None);
    }

    #[test]
    fn a_node_in_handshake_is_not_known_yet() {
        let handshake = format!("{ONE}eee 127.0.0.1:4@10004 handshake - 0 0 0 disconnected\n");
        assert_eq!(report(1, &handshake).known(), 3);
    }

    #[test]
    fn shows_a_table() {
        let node = |report: &Report, port: u16| LocalNode {
            address: report.address.clone(),
            port,
            pid: 100 + u32::from(port),
            dir: PathBuf::new(),
            role: report.role().unwrap(),
        };
        let [one, _, three] = whole();
        let nodes = vec![
            Seen::Running(node(&one, 1)),
            Seen::Running(node(&three, 3)),
            Seen::Silent { address: "127.0.0.1:4".into(), pid: 104 },
            Seen::Stopped { address: "127.0.0.1:10".into() },
        ];
        let expected = "ADDRESS       ROLE     SLOTS           PID\n\
                        127.0.0.1:1   primary  0-9,12          101\n\
                        127.0.0.1:3   replica  of 127.0.0.1:1  103\n\
                        127.0.0.1:4   silent   -               104\n\
                        127.0.0.1:10  stopped  -               -\n";
        assert_eq!(Status { nodes, fault: None }.to_string(), expected);
    }
}
