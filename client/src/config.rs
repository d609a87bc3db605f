//! How a client reaches a cluster: addresses, deadlines, windows.

use std::time::Duration;

use crate::error::{Error, Result};

/// Settings of a [`crate::Client`]. All have defaults that serve.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// gRPC addresses of brokers, `host:port`. One that answers is enough; the others of the cluster are learned from it, and asked
    /// where none of these is there any more.
    pub bootstrap: Vec<String>,
    /// A name for the broker's logs and metrics.
    pub client_id: String,
    /// For a connection to come up.
    pub connect_timeout: Duration,
    /// For one attempt of a request.
    pub request_timeout: Duration,
    /// For a call with all its attempts.
    pub operation_timeout: Duration,
    /// Wait before the second attempt; doubled for each further one, with jitter.
    pub backoff_min: Duration,
    /// Longest wait between two attempts.
    pub backoff_max: Duration,
    /// What is known of topics is asked for anew after so long, so that new partitions are found.
    pub metadata_age_max: Duration,
    /// A connection with calls under way is asked for a sign of life after so long without one.
    pub keep_alive: Duration,
    /// One that does not answer in this time is given up: a machine that is gone or stands still closes no connection, and its
    /// partitions are led elsewhere by then.
    pub keep_alive_timeout: Duration,
    /// Bytes that a broker may send ahead on one stream. A stream's throughput is at most one window a round trip.
    pub stream_window_bytes: u32,
    /// The same for all streams of a connection together.
    pub connection_window_bytes: u32,
    /// HTTP/2 frames that the client takes, but for consumers: they take frames as large as the messages that they ask for.
    pub frame_bytes_max: u32,
    /// Largest message that the client takes.
    pub message_bytes_max: usize,
}

impl ClientConfig {
    /// The defaults, with these addresses.
    #[must_use]
    pub fn new<A: Into<String>>(bootstrap: impl IntoIterator<Item = A>) -> ClientConfig {
        ClientConfig {
            bootstrap: bootstrap.into_iter().map(Into::into).collect(),
            client_id: "floodmark-client".to_owned(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            operation_timeout: Duration::from_secs(60),
            backoff_min: Duration::from_millis(50),
            // Leaders are elected within seconds, and everybody who writes waits for the news.
            backoff_max: Duration::from_millis(250),
            metadata_age_max: Duration::from_secs(300),
            keep_alive: Duration::from_secs(3),
            keep_alive_timeout: Duration::from_secs(5),
            stream_window_bytes: 8 << 20,
            connection_window_bytes: 32 << 20,
            frame_bytes_max: 256 << 10,
            message_bytes_max: 128 << 20,
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.bootstrap.is_empty() {
            return Err(Error::Invalid(
                "no bootstrap address is given; name one broker's host:port".to_owned(),
            ));
        }
        // HTTP/2's own limits (RFC 9113, 6.5.2).
        if !(1 << 14..1 << 24).contains(&self.frame_bytes_max) {
            return Err(Error::Invalid("frame_bytes_max must be from 16384 to 16777215".to_owned()));
        }
        if self.stream_window_bytes > i32::MAX as u32 || self.connection_window_bytes > i32::MAX as u32 {
            return Err(Error::Invalid("a window is 2 GiB at most".to_owned()));
        }
        Ok(())
    }
}
