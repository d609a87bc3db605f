//! What a broker cannot be without: tasks and threads that run as long as it does. The first of them that ends by a panic is told to whoever keeps
//! the process, because a broker that goes on without it looks well and is of no use. Must not know what they do.

use std::sync::Arc;

use tokio::sync::watch;

/// Hears of the end of what is vital; clones are the same.
#[derive(Debug, Clone)]
pub struct Vitals(Arc<watch::Sender<Option<&'static str>>>);

/// Held by a task or a thread as long as it runs.
#[derive(Debug)]
pub struct Vital {
    does: &'static str,
    vitals: Vitals,
}

impl Default for Vitals {
    fn default() -> Vitals {
        Vitals(Arc::new(watch::Sender::new(None)))
    }
}

impl Vitals {
    /// For what `does` this, to be held in its own scope: a panic that goes through there is heard of. An end without one is not.
    #[must_use]
    pub fn hold(&self, does: &'static str) -> Vital {
        Vital { does, vitals: self.clone() }
    }

    /// The same for a task.
    pub fn keep<T, F: Future<Output = T>>(
        &self,
        does: &'static str,
        task: F,
    ) -> impl Future<Output = T> + use<T, F> {
        let vital = self.hold(does);
        async move {
            let _vital = vital;
            task.await
        }
    }

    /// Returns when something vital has panicked, with what it was. The process should end then: what it was about may be half done.
    pub fn failed(&self) -> impl Future<Output = String> + Send + use<> {
        let mut told = self.0.subscribe();
        async move {
            let does = told.wait_for(Option::is_some).await.ok().and_then(|told| *told);
            match does {
                Some(does) => {
                    format!("{does} panicked, and the log says where; start it again, and please report this")
                }
                // Nobody is left who could panic.
                None => std::future::pending().await,
            }
        }
    }
}

impl Drop for Vital {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let does = self.does;
            self.vitals.0.send_if_modified(|first| first.is_none() && first.replace(does).is_none());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_first_panic_is_told_and_no_other_end() {
        let vitals = Vitals::default();
        tokio::spawn(vitals.keep("what ends", async {})).await.unwrap();
        let aborted = tokio::spawn(vitals.keep("what is aborted", std::future::pending::<()>()));
        aborted.abort();
        assert!(aborted.await.unwrap_err().is_cancelled());
        let early = tokio::time::timeout(Duration::from_millis(1), vitals.failed()).await;
        assert!(early.is_err(), "{early:?}");

        let heard = vitals.failed();
        // Behind a wait, as everything that runs for long.
        let panics = async {
            tokio::task::yield_now().await;
            panic!("on purpose")
        };
        assert!(tokio::spawn(vitals.keep("the task", panics)).await.unwrap_err().is_panic());
        let vital = vitals.hold("the thread");
        let thread = std::thread::spawn(move || {
            let _vital = vital;
            panic!("on purpose")
        });
        assert!(thread.join().is_err());
        for heard in [heard.await, vitals.failed().await] {
            assert!(heard.starts_with("the task panicked"), "{heard}");
        }
    }
}
