//! Why a call between brokers failed, in words for a log: what tonic says of it by itself names types, and says most of it twice.

use std::error::Error;

use tonic::{ConnectError, Status};

/// What the resolver of names calls its failures.
const NO_NAME: &str = "dns error";

/// The reason in one sentence, each cause once.
#[must_use]
pub fn reason(status: &Status) -> String {
    let mut causes = Vec::new();
    let (mut is_unconnected, mut cause) = (false, status.source());
    while let Some(e) = cause {
        is_unconnected |= e.is::<ConnectError>();
        causes.push(e.to_string());
        cause = e.source();
    }
    of(status, &causes, is_unconnected)
}

fn of(status: &Status, causes: &[String], is_unconnected: bool) -> String {
    let Some(root) = causes.last() else {
        // Some refuse without a word.
        let message = status.message();
        return if message.is_empty() { status.code().description().to_owned() } else { message.to_owned() };
    };
    if causes.iter().any(|cause| cause == NO_NAME) {
        return format!("the name of its host is unknown: {root}");
    }
    if is_unconnected {
        return format!("no connection: {root}");
    }
    let mut words = status.message().to_owned();
    for cause in causes {
        if !words.contains(&**cause) {
            words = if words.is_empty() { cause.clone() } else { format!("{words}: {cause}") };
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic::transport::Endpoint;

    use super::*;

    #[test]
    fn each_cause_is_told_once() {
        let status = |message: &str| Status::new(Code::Unavailable, message);
        let causes = |causes: &[&str]| causes.iter().map(|cause| (*cause).to_owned()).collect::<Vec<_>>();
        let http2 = causes(&["transport error", "http2 error", "stream closed", "stream closed"]);
        for (message, causes, is_unconnected, expected) in [
            ("no such topic", causes(&[]), false, "no such topic"),
            ("", causes(&[]), false, "The service is currently unavailable"),
            ("http2 error", http2, false, "http2 error: transport error: stream closed"),
            ("", causes(&["a", "b", "a"]), false, "a: b"),
            (
                "x",
                causes(&["transport error", "x", "Connection refused"]),
                true,
                "no connection: Connection refused",
            ),
            (
                "x",
                causes(&["x", NO_NAME, "lookup failed"]),
                true,
                "the name of its host is unknown: lookup failed",
            ),
        ] {
            assert_eq!(of(&status(message), &causes, is_unconnected), expected);
        }
    }

    /// As the transport really says it.
    #[tokio::test]
    async fn who_is_not_there_and_who_has_no_address_are_told_apart() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        for (host, expected) in [
            ("127.0.0.1", "no connection: Connection refused"),
            // Kept by RFC 6761 from ever being one.
            ("nobody.invalid", "the name of its host is unknown: "),
        ] {
            let endpoint = Endpoint::from_shared(format!("http://{host}:{port}")).unwrap();
            let failed = Status::from_error(Box::new(endpoint.connect().await.unwrap_err()));
            let told = reason(&failed);
            assert!(told.starts_with(expected) && !told.contains("tonic"), "{told}");
        }
    }
}
