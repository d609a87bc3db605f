//! `floodmark cluster ready`: whether one broker is ready, asked by its HTTP door, for scripts and for containers that hold nothing but this
//! program.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use tokio::time::{Instant, sleep};

use super::super::{Outcome, OutputArgs};
use crate::input::quantity;
use crate::output::sentence;

pub(crate) const EXAMPLES: &str = "Examples:
  floodmark cluster ready --http 127.0.0.1:9094                exit code 0: ready; 1: not ready, with the reason
  floodmark cluster ready --http 127.0.0.1:9094 --wait 5m      for a rolling restart: go on once it is

Ready means that clients are served and that the broker is in sync in all that it holds, so that the next one may be stopped.";

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A broker that is there answers at once.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// The answer is one line behind its headers.
const ANSWER_BYTES_MAX: u64 = 16 << 10;

#[derive(Debug, Args)]
pub(crate) struct ReadyArgs {
    /// The broker's HTTP address.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9094")]
    http: String,
    /// Wait for it so long [default: not at all].
    #[arg(long, value_name = "DURATION", value_parser = quantity::positive_duration)]
    wait: Option<Duration>,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(args: &ReadyArgs) -> anyhow::Result<Outcome> {
    #[derive(serde::Serialize)]
    struct Told {
        is_ready: bool,
        /// Null where it is ready.
        reason: Option<String>,
    }
    let until = Instant::now() + args.wait.unwrap_or_default();
    let reason = loop {
        let http = args.http.clone();
        let asked = tokio::task::spawn_blocking(move || ask(&http)).await.context("asking failed")?;
        let reason = match asked {
            Ok(reason) => reason,
            // One that is being started does not listen yet.
            Err(e) if args.wait.is_some() => Some(sentence(&e)),
            Err(e) => return Err(e),
        };
        if reason.is_none() || Instant::now() >= until {
            break reason;
        }
        sleep(LOOK_EVERY).await;
    };
    let words = reason.as_ref().map_or_else(|| "ready".to_owned(), |reason| format!("not ready: {reason}"));
    let is_ready = reason.is_none();
    args.output.say(&words, &Told { is_ready, reason })?;
    Ok(if is_ready { Outcome::Good } else { Outcome::Unwell })
}

/// Why it is not ready, in the broker's words. Blocks.
fn ask(http: &str) -> anyhow::Result<Option<String>> {
    let answer = get(http).map_err(|e| in_words(&e)).with_context(|| {
        format!("{http} does not answer; --http takes the address that `floodmark serve` prints for HTTP")
    })?;
    let status = answer.strip_prefix("HTTP/1.1 ").or_else(|| answer.strip_prefix("HTTP/1.0 "));
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body.trim());
    match status.and_then(|rest| rest.get(..3)) {
        Some("200") => Ok(None),
        Some("503") => Ok(Some(body.to_owned())),
        _ => bail!("{http} answers, but not as a broker's HTTP door does"),
    }
}

/// A socket whose time is over says only that nothing is there at the moment.
fn in_words(error: &io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            anyhow!("no answer within {} s", ANSWER_TIMEOUT.as_secs())
        }
        _ => anyhow!("{error}"),
    }
}

fn get(http: &str) -> io::Result<String> {
    let address = http.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
    let mut socket = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT)?;
    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    socket.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    write!(socket, "GET /readyz HTTP/1.0\r\nHost: {http}\r\n\r\n")?;
    let mut answer = Vec::new();
    socket.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_broker_that_says_nothing_is_told_in_words() {
        let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = silent.local_addr().unwrap().to_string();
        let told = format!("{:#}", ask(&address).unwrap_err());
        assert!(told.contains("no answer within 3 s") && !told.contains("os error"), "{told}");
    }
}
