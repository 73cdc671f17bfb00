//! Makes one cluster of separate servers, by the commands that redis-cli would send, and asks nodes how they are.
//!
//! Every wait is a question asked again and again until nothing is missing, or until the deadline, which then says what was.

use std::time::Duration;

use redis_protocol::resp2::types::BytesFrame;
use tokio::time::{Instant, sleep};

use super::Error;
use super::folder::Folder;
use super::plan::{Duty, Plan, address};
use super::server::Server;
use super::view::{LocalNode, Report, Seen, fault, field};
use crate::backend::control::{Control, ControlError};

/// How long a node may take for one answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How long each stage may take. Two seconds are usual: a primary waits so long before it takes writes.
const STAGE: Duration = Duration::from_secs(60);
/// How often a question is asked again.
const POLL: Duration = Duration::from_millis(50);
/// Nodes that each node is told to meet: all of them in a cluster of usual size, and a bounded number in a large one.
const MEETS: usize = 16;
/// Slots named in one `ADDSLOTS`, to servers that do not know `ADDSLOTSRANGE` (before 7.0).
const SLOTS_AT_ONCE: usize = 1000;

/// A connection to one of the nodes.
pub(super) struct Peer {
    address: String,
    control: Control,
}

impl Peer {
    async fn ask(&mut self, words: &[&str]) -> Result<String, Error> {
        let args: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let command = || words[..words.len().min(3)].join(" ");
        match self.control.call(&args).await {
            Ok(BytesFrame::SimpleString(text) | BytesFrame::BulkString(text)) => {
                Ok(String::from_utf8_lossy(&text).into_owned())
            }
            Ok(_) => Err(Error::Strange { address: self.address.clone(), command: command() }),
            Err(cause) => {
                Err(Error::Refused { address: self.address.clone(), command: command(), cause })
            }
        }
    }

    async fn report(&mut self) -> Result<Report, Error> {
        Ok(Report {
            address: self.address.clone(),
            info: self.ask(&["CLUSTER", "INFO"]).await?,
            nodes: self.ask(&["CLUSTER", "NODES"]).await?,
            replication: self.ask(&["INFO", "replication"]).await?,
        })
    }

    async fn add_slots(&mut self, first: u16, last: u16) -> Result<(), Error> {
        let ranges =
            self.ask(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]).await;
        if !ranges.as_ref().is_err_and(is_unknown_command) {
            return ranges.map(drop);
        }
        let slots: Vec<String> = (first..=last).map(|slot| slot.to_string()).collect();
        for some in slots.chunks(SLOTS_AT_ONCE) {
            let words: Vec<&str> = ["CLUSTER", "ADDSLOTS"]
                .into_iter()
                .chain(some.iter().map(String::as_str))
                .collect();
            self.ask(&words).await?;
        }
        Ok(())
    }
}

/// Waits until every server answers, which it does not while it loads its data.
pub(super) async fn connect(servers: &mut [Server]) -> Result<Vec<Peer>, Error> {
    let mut peers = Vec::with_capacity(servers.len());
    for server in servers {
        let mut peer = None;
        until(async || {
            server.check_alive()?;
            match greet(server).await {
                Ok(greeted) => peer = Some(greeted),
                Err(reason) => return Ok(Some(reason)),
            }
            Ok(None)
        })
        .await?;
        peers.extend(peer);
    }
    Ok(peers)
}

/// A connection to that very server, or why there is none yet. Had somebody else got hold of the port, the commands that
/// form a cluster would hit theirs.
async fn greet(server: &Server) -> Result<Peer, String> {
    let address = address(server.port());
    let control =
        Control::connect(&address, ANSWER).await.map_err(|error| format!("{address}: {error}"))?;
    let mut peer = Peer { address, control };
    peer.ask(&["PING"]).await.map_err(|error| error.to_string())?;
    let info = peer.ask(&["INFO", "server"]).await.map_err(|error| error.to_string())?;
    let (found, expected) = (field(&info, "process_id").unwrap_or("?"), server.pid().to_string());
    if found != expected {
        return Err(format!("process {found} answers on {}, not {expected}", peer.address));
    }
    Ok(peer)
}

/// Joins empty nodes to the cluster of the plan; `peers` are in the order of its seats.
pub(super) async fn form(peers: &mut [Peer], plan: &Plan, tell: fn(&str)) -> Result<(), Error> {
    let mut ids = Vec::with_capacity(peers.len());
    tell("giving out slots");
    for (epoch, (peer, seat)) in (1..).zip(peers.iter_mut().zip(&plan.seats)) {
        if let Duty::Serve { first, last } = seat.duty {
            peer.add_slots(first, last).await?;
        }
        // Different from the start, so that the nodes need not settle a conflict of epochs among themselves.
        let epoch: u16 = epoch;
        peer.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch.to_string()]).await?;
        ids.push(peer.ask(&["CLUSTER", "MYID"]).await?);
    }
    tell("introducing the nodes to each other");
    meet(peers, plan).await?;
    tell("attaching replicas");
    for (peer, seat) in peers.iter_mut().zip(&plan.seats) {
        if let Duty::Follow { seat: primary } = seat.duty {
            replicate(peer, &ids[primary]).await?;
        }
    }
    Ok(())
}

/// Every node meets the [`MEETS`] that come after it. One would suffice, but then the others hear of each other by gossip
/// only, which takes seconds.
async fn meet(peers: &mut [Peer], plan: &Plan) -> Result<(), Error> {
    for (index, peer) in peers.iter_mut().enumerate() {
        for port in plan.ports().skip(index + 1).take(MEETS) {
            peer.ask(&["CLUSTER", "MEET", "127.0.0.1", &port.to_string()]).await?;
        }
    }
    let all = peers.len();
    until(async || {
        for peer in &mut *peers {
            let known = peer.report().await?.known();
            if known != all {
                return Ok(Some(format!("{} knows {known} of {all} nodes", peer.address)));
            }
        }
        Ok(None)
    })
    .await
}

/// A node may know the primary by name and still not by role, and says so.
async fn replicate(peer: &mut Peer, primary: &str) -> Result<(), Error> {
    until(async || match peer.ask(&["CLUSTER", "REPLICATE", primary]).await {
        Err(Error::Refused { cause: ControlError::Reply(_, text), .. }) => Ok(Some(text)),
        outcome => outcome.map(|_| None),
    })
    .await
}

/// Waits until all nodes say the same and every replica is linked.
pub(super) async fn agree(peers: &mut [Peer]) -> Result<Vec<Report>, Error> {
    let mut reports = Vec::new();
    until(async || {
        reports.clear();
        for peer in &mut *peers {
            reports.push(peer.report().await?);
        }
        Ok(fault(&reports))
    })
    .await?;
    Ok(reports)
}

/// How the node on `port` is, and its report if it gives one.
pub(super) async fn look(folder: &Folder, port: u16) -> (Seen, Option<Report>) {
    let address = address(port);
    let Some(server) = Server::running(&folder.node(port), port) else {
        return (Seen::Stopped { address }, None);
    };
    let silent = Seen::Silent { address: address.clone(), pid: server.pid() };
    let Ok(mut peer) = greet(&server).await else { return (silent, None) };
    let Ok(report) = peer.report().await else { return (silent, None) };
    let seen = node(&server, &report, folder).map_or(silent, Seen::Running);
    (seen, Some(report))
}

/// A server and what it said of itself, put together; `None` if it said nothing of itself.
pub(super) fn node(server: &Server, report: &Report, folder: &Folder) -> Option<LocalNode> {
    let (port, pid, dir) = (server.port(), server.pid(), folder.node(server.port()));
    Some(LocalNode { address: address(port), port, pid, dir, role: report.role()? })
}

/// Asks `missing` until it answers nothing, but not longer than a stage may take.
async fn until(
    mut missing: impl AsyncFnMut() -> Result<Option<String>, Error>,
) -> Result<(), Error> {
    let deadline = Instant::now() + STAGE;
    while let Some(missing) = missing().await? {
        if Instant::now() >= deadline {
            return Err(Error::Late { seconds: STAGE.as_secs(), missing });
        }
        sleep(POLL).await;
    }
    Ok(())
}

/// Redis says `Unknown subcommand or wrong number of arguments`, newer ones `unknown subcommand`.
fn is_unknown_command(error: &Error) -> bool {
    matches!(error, Error::Refused { cause: ControlError::Reply(_, text), .. } if text.contains("nknown"))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Answers as a server older than 7.0 would, and gives back the words it heard once the client has gone.
    async fn old_server(client: TcpStream) -> Vec<Vec<String>> {
        let (read, mut write) = client.into_split();
        let mut lines = BufReader::new(read).lines();
        let mut heard = Vec::new();
        while let Some(count) = lines.next_line().await.unwrap() {
            let mut words = Vec::new();
            for _ in 0..count[1..].parse().unwrap() {
                lines.next_line().await.unwrap();
                words.push(lines.next_line().await.unwrap().unwrap());
            }
            let unknown = words[1] == "ADDSLOTSRANGE";
            let reply = if unknown {
                "-ERR Unknown subcommand or wrong number of arguments\r\n"
            } else {
                "+OK\r\n"
            };
            write.write_all(reply.as_bytes()).await.unwrap();
            heard.push(words);
        }
        heard
    }

    #[tokio::test]
    async fn old_servers_are_given_slots_in_portions() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = async { old_server(listener.accept().await.unwrap().0).await };
        let client = async {
            let control = Control::connect(&address, ANSWER).await.unwrap();
            Peer { address: address.clone(), control }.add_slots(5461, 7500).await.unwrap();
        };
        let (heard, ()) = tokio::join!(server, client);

        assert_eq!(heard[0], ["CLUSTER", "ADDSLOTSRANGE", "5461", "7500"]);
        let portions: Vec<usize> = heard[1..].iter().map(|words| words.len() - 2).collect();
        assert_eq!(portions, [1000, 1000, 40]);
        let slots = heard[1..]
            .iter()
            .flat_map(|words| &words[2..])
            .map(|slot| slot.parse::<u16>().unwrap());
        assert!(slots.eq(5461..=7500));
    }
}
