//! What a server from which no command has got an answer does with a connection: told apart for whoever typed its address.

use std::io;
use std::time::Duration;

use anyhow::anyhow;
use floodmark_client::{Client, ClientConfig, Error};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A door that is served says its settings at once.
const LOOK: Duration = Duration::from_secs(1);
/// How a client begins HTTP/2, with no settings of its own (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const FRAME_HEAD_LEN: usize = 9;
/// The type of a frame of settings, which each side sends first.
const SETTINGS: u8 = 4;

/// What became of one connection.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Refuses,
    /// No connection for this reason.
    NotReached(String),
    /// It is connected, and nothing comes.
    Silent,
    /// Whatever it is, it speaks no HTTP/2.
    SomethingElse,
    Http2,
    /// It is a broker, and does not serve for this reason.
    Says(String),
    /// By now.
    Serves,
}

/// The failure of the first question, with what each of the servers asked does.
pub(super) async fn explain(servers: &[&str], failure: Error) -> anyhow::Error {
    let looks: Vec<_> = servers
        .iter()
        .map(|server| {
            let server = (*server).to_owned();
            tokio::spawn(async move { look(&server).await })
        })
        .collect();
    let (mut told, mut all_say) = (Vec::with_capacity(servers.len()), true);
    for (server, look) in servers.iter().zip(looks) {
        let found = look.await.unwrap_or_else(|e| Found::NotReached(e.to_string()));
        all_say &= matches!(found, Found::Says(_));
        told.push(format!("{server} {}", in_words(&found, &failure)));
    }
    let told = told.join("; ");
    // The failure is then what one of them says.
    if all_say { anyhow!(told) } else { anyhow!(failure).context(told) }
}

fn in_words(found: &Found, failure: &Error) -> String {
    match found {
        Found::Refuses => "refuses connections; is `floodmark serve` running there?".to_owned(),
        Found::NotReached(reason) => format!("is not reached ({reason})"),
        Found::Silent => "accepts connections and does not answer: its broker stands still".to_owned(),
        Found::Says(reason) => format!("says: {reason}"),
        Found::Serves => "serves by now; try again".to_owned(),
        Found::Http2 if !is_of_another_service(failure) => {
            "speaks HTTP/2, and has not answered this in time".to_owned()
        }
        Found::SomethingElse | Found::Http2 => {
            "answers, but not as Floodmark's gRPC door does; --server takes the address of that door"
                .to_owned()
        }
    }
}

/// A refusal without a broker's own words.
fn is_of_another_service(failure: &Error) -> bool {
    match failure {
        Error::Refused(refusal) => refusal.code.is_none(),
        Error::Deadline { last: Some(last), .. } => is_of_another_service(last),
        Error::Protocol(_) => true,
        _ => false,
    }
}

async fn look(server: &str) -> Found {
    let mut socket = match timeout(LOOK, TcpStream::connect(server)).await {
        Ok(Ok(socket)) => socket,
        Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => return Found::Refuses,
        Ok(Err(e)) => return Found::NotReached(e.to_string()),
        Err(_elapsed) => return Found::NotReached(format!("no connection in {} s", LOOK.as_secs())),
    };
    let mut head = [0; FRAME_HEAD_LEN];
    let greeted = timeout(LOOK, async {
        socket.write_all(PREFACE).await?;
        socket.read_exact(&mut head).await
    });
    match greeted.await {
        Err(_elapsed) => Found::Silent,
        // Length, type, flags, and the stream, which is that of the connection.
        Ok(Ok(_)) if head[3] == SETTINGS && head[5..] == [0; 4] => ask(server).await,
        Ok(_) => Found::SomethingElse,
    }
}

/// What a server of HTTP/2 says for itself.
async fn ask(server: &str) -> Found {
    let mut config = ClientConfig::new([server]);
    config.request_timeout = LOOK;
    match Client::at_once(config).await {
        Ok(_) => Found::Serves,
        Err(Error::Refused(refusal)) if refusal.code.is_some() => Found::Says(refusal.message),
        Err(_) => Found::Http2,
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn listener() -> (TcpListener, String) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (listener, address)
    }

    /// A server that says this to whoever connects, and hangs up.
    async fn says(words: &'static [u8]) -> String {
        let (listener, address) = listener().await;
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.read_exact(&mut [0; PREFACE.len()]).await.unwrap();
            socket.write_all(words).await.unwrap();
        });
        address
    }

    #[tokio::test]
    async fn servers_are_told_apart_by_what_they_do_with_a_connection() {
        let (_silent, silent) = listener().await;
        let (gone, refuses) = listener().await;
        drop(gone);
        let late =
            || Error::Deadline { what: "describing the cluster", limit: Duration::from_secs(1), last: None };
        for (server, words) in [
            (silent, "accepts connections and does not answer"),
            (refuses, "refuses connections"),
            (says(b"HTTP/1.1 400 Bad Request\r\n\r\n").await, "not as Floodmark's gRPC door"),
            (says(b"").await, "not as Floodmark's gRPC door"),
            (says(b"\0\0\0\x04\0\0\0\0\0").await, "speaks HTTP/2"),
        ] {
            let told = format!("{:#}", explain(&[&server], late()).await);
            assert!(told.starts_with(&format!("{server} ")) && told.contains(words), "{told}");
            assert!(told.contains("describing the cluster took longer"), "{told}");
            let is_door = told.contains("gRPC door");
            assert_eq!(is_door, words.contains("gRPC door"), "{told}");
        }
    }
}
