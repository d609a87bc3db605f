//! Waits between attempts: doubled each time, with jitter, so that clients that failed together do not come back together.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::chance::random_u64;
use crate::config::ClientConfig;
use crate::error::{Error, Result};

/// How long to wait next.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    attempts: u32,
}

impl Backoff {
    pub(crate) fn new(config: &ClientConfig) -> Backoff {
        Backoff { min: config.backoff_min, max: config.backoff_max, attempts: 0 }
    }

    /// After a success.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }

    /// From half of the doubled wait to all of it.
    pub(crate) fn next(&mut self) -> Duration {
        let full = self.min.saturating_mul(1 << self.attempts.min(20)).min(self.max);
        self.attempts = self.attempts.saturating_add(1);
        let half_us = u64::try_from(full.as_micros() / 2).unwrap_or(u64::MAX).max(1);
        Duration::from_micros(half_us + random_u64() % half_us)
    }
}

/// Tries until it works, the failure is one that lasts, or the time is over.
pub(crate) async fn retry<T, F>(
    config: &ClientConfig,
    what: &'static str,
    limit: Duration,
    mut attempt: impl FnMut() -> F,
) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let deadline = Instant::now() + limit;
    let mut backoff = Backoff::new(config);
    let mut last = None;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match timeout(left, attempt()).await {
            Ok(Err(error)) if error.is_retryable() => {
                let wait = backoff.next();
                last = Some(Box::new(error));
                if wait < deadline.saturating_duration_since(Instant::now()) {
                    sleep(wait).await;
                    continue;
                }
            }
            Ok(done) => return done,
            Err(_elapsed) => {}
        }
        return Err(Error::Deadline { what, limit, last });
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_vary() {
        let config = ClientConfig::new(["a:1"]);
        let mut backoff = Backoff::new(&config);
        let mut full = config.backoff_min;
        for _ in 0..40 {
            let wait = backoff.next();
            assert!(wait >= full / 2 && wait <= full, "{wait:?} of {full:?}");
            full = (full * 2).min(config.backoff_max);
        }
        backoff.reset();
        assert!(backoff.next() <= config.backoff_min);
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_passes_is_tried_again() {
        let config = ClientConfig::new(["a:1"]);
        let tried = Cell::new(0);
        let unreachable = || Error::Unreachable { address: "a:1".to_owned(), reason: "refused".to_owned() };
        let done = retry(&config, "a test", Duration::from_secs(5), || async {
            tried.set(tried.get() + 1);
            if tried.get() < 3 { Err(unreachable()) } else { Ok(tried.get()) }
        });
        assert!(matches!(done.await, Ok(3)));
        let lasting = retry(&config, "a test", Duration::from_secs(5), || async {
            tried.set(tried.get() + 1);
            Err::<(), _>(Error::Closed("it"))
        });
        assert!(matches!(lasting.await, Err(Error::Closed(_))));
        assert_eq!(tried.get(), 4);
        let never =
            retry(&config, "a test", Duration::from_secs(5), || async { Err::<(), _>(unreachable()) });
        let Err(Error::Deadline { last: Some(last), .. }) = never.await else { panic!("it ends in time") };
        assert!(matches!(*last, Error::Unreachable { .. }));
    }
}
