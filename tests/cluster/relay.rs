//! A link that a test holds in its hands: who dials it reaches a server, as long as the test lets it.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What becomes of what was sent to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It arrives.
    Arrives,
    /// It arrives, and from then on the server's answers do not.
    Unheard,
    /// It does not arrive, and the link breaks.
    Lost,
}

/// Stands in front of one server; gone when dropped, with all links.
pub(crate) struct Relay {
    pub(crate) port: u16,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// `judge` is shown what clients send, as it comes.
    pub(crate) async fn start(
        server: String,
        judge: impl Fn(&[u8]) -> Fate + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let (judge, mut tasks) = (Arc::new(judge), JoinSet::new());
        tasks.spawn(async move {
            let mut links = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (server, judge) = (server.clone(), Arc::clone(&judge));
                links.spawn(async move {
                    if let Ok(server) = TcpStream::connect(server).await {
                        link(client, server, &*judge).await;
                    }
                });
            }
        });
        Self { port, _tasks: tasks }
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

/// Passes bytes on until one side has had enough.
async fn link(mut client: TcpStream, mut server: TcpStream, judge: &impl Fn(&[u8]) -> Fate) {
    let (mut sent, mut answered, mut is_heard) = (vec![0; 1 << 16], vec![0; 1 << 16], true);
    loop {
        tokio::select! {
            read = client.read(&mut sent) => {
                let Ok(some @ 1..) = read else { return };
                match judge(&sent[..some]) {
                    Fate::Arrives => {}
                    Fate::Unheard => is_heard = false,
                    Fate::Lost => return,
                }
                if server.write_all(&sent[..some]).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut answered) => {
                let Ok(some @ 1..) = read else { return };
                if is_heard && client.write_all(&answered[..some]).await.is_err() {
                    return;
                }
            }
        }
    }
}
