//! Who may come in, and with how many bytes: limits on connections, and one budget of memory for requests of all of them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a connection may hold without asking, so that small requests touch nothing that other cores write.
pub(crate) const FREE_BYTES: usize = 16 << 10;
/// What the budget is given out in.
const CHUNK_BYTES: usize = 16 << 10;

/// Memory for requests that arrive or are not answered yet.
///
/// Connections take it as bytes arrive, so that an announced length costs nobody anything. All of it may then be held by requests that
/// have arrived in part; so that these are not stuck for ever, one connection at a time may go over the budget until its request is
/// answered. Memory is bounded by the budget, one largest request, and [`FREE_BYTES`] for each connection.
#[derive(Debug, Clone)]
pub(crate) struct ByteBudget {
    chunks: Arc<Semaphore>,
    overdraft: Arc<Semaphore>,
}

impl ByteBudget {
    pub(crate) fn new(bytes: usize) -> ByteBudget {
        let chunks = (bytes / CHUNK_BYTES).clamp(1, Semaphore::MAX_PERMITS);
        ByteBudget { chunks: Arc::new(Semaphore::new(chunks)), overdraft: Arc::new(Semaphore::new(1)) }
    }

    /// A connection's part of it, of which it has nothing yet.
    pub(crate) fn share(&self) -> Share {
        Share { budget: self.clone(), held: None, overdraft: None, wait: None }
    }

    /// Bytes that are not given out.
    pub(crate) fn available_bytes(&self) -> usize {
        self.chunks.available_permits() * CHUNK_BYTES
    }
}

/// One connection's part of the budget; given back when dropped.
pub(crate) struct Share {
    budget: ByteBudget,
    held: Option<OwnedSemaphorePermit>,
    overdraft: Option<OwnedSemaphorePermit>,
    wait: Option<Pin<Box<dyn Future<Output = Granted> + Send>>>,
}

enum Granted {
    Chunks(OwnedSemaphorePermit),
    Overdraft(OwnedSemaphorePermit),
}

impl Share {
    /// Bytes that may be held now.
    pub(crate) fn allowed_bytes(&self) -> usize {
        match self.overdraft {
            Some(_) => usize::MAX,
            None => FREE_BYTES + self.held_chunks() * CHUNK_BYTES,
        }
    }

    /// True while more is held than the budget has.
    pub(crate) fn is_overdrawn(&self) -> bool {
        self.overdraft.is_some()
    }

    /// True while an answer of [`Share::poll_hold`] is outstanding.
    pub(crate) fn is_waiting(&self) -> bool {
        self.wait.is_some()
    }

    /// Ready once so many bytes may be held. To be asked for what is needed soon, not for what is announced.
    pub(crate) fn poll_hold(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<()> {
        loop {
            let Some(missing) = bytes.checked_sub(self.allowed_bytes()).filter(|&missing| missing > 0) else {
                self.wait = None;
                return Poll::Ready(());
            };
            let chunks = u32::try_from(missing.div_ceil(CHUNK_BYTES)).unwrap_or(u32::MAX);
            if self.wait.is_none() {
                if let Ok(permit) = Arc::clone(&self.budget.chunks).try_acquire_many_owned(chunks) {
                    self.add(permit);
                    continue;
                }
                self.wait = Some(Box::pin(wait(self.budget.clone(), chunks)));
            }
            let Some(wait) = &mut self.wait else { continue };
            match ready!(wait.as_mut().poll(cx)) {
                Granted::Chunks(permit) => self.add(permit),
                Granted::Overdraft(permit) => self.overdraft = Some(permit),
            }
            self.wait = None;
        }
    }

    /// Gives back what is not needed to hold so many bytes.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        let needed = bytes.saturating_sub(FREE_BYTES).div_ceil(CHUNK_BYTES);
        if self.held_chunks() >= needed {
            self.overdraft = None;
        }
        let spare = self.held_chunks().saturating_sub(needed);
        match &mut self.held {
            Some(_) if needed == 0 => self.held = None,
            Some(held) if spare > 0 => drop(held.split(spare)),
            _ => {}
        }
    }

    fn held_chunks(&self) -> usize {
        self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }

    fn add(&mut self, permit: OwnedSemaphorePermit) {
        match &mut self.held {
            Some(held) => held.merge(permit),
            None => self.held = Some(permit),
        }
    }
}

/// The semaphores are never closed; if they were, nothing would be granted any more.
async fn wait(budget: ByteBudget, chunks: u32) -> Granted {
    tokio::select! {
        Ok(permit) = budget.chunks.acquire_many_owned(chunks) => Granted::Chunks(permit),
        Ok(permit) = budget.overdraft.acquire_owned() => Granted::Overdraft(permit),
        else => std::future::pending().await,
    }
}

/// How many connections there are, in all and from each address.
#[derive(Debug)]
pub(crate) struct ConnectionLimits {
    total_max: usize,
    per_address_max: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    #[error("max.connections.total is reached")]
    Total,
    #[error("max.connections.per.ip is reached")]
    Address,
}

impl Full {
    /// Its name in metrics.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Full::Total => "limit",
            Full::Address => "address_limit",
        }
    }
}

impl ConnectionLimits {
    pub(crate) fn new(total_max: usize, per_address_max: usize) -> Arc<ConnectionLimits> {
        Arc::new(ConnectionLimits { total_max, per_address_max, open: Mutex::default() })
    }

    /// A place for a connection from `address`, free again when the answer is dropped.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Place, Full> {
        // One machine has one address, also where it comes over the other family's socket.
        let address = address.to_canonical();
        let mut open = self.open.lock();
        if open.total >= self.total_max {
            return Err(Full::Total);
        }
        let from_there = open.by_address.entry(address).or_default();
        if *from_there >= self.per_address_max {
            return Err(Full::Address);
        }
        *from_there += 1;
        open.total += 1;
        Ok(Place { limits: Arc::clone(self), address })
    }

    #[cfg(test)]
    fn open(&self) -> usize {
        self.open.lock().total
    }
}

/// The place of one connection.
#[derive(Debug)]
pub(crate) struct Place {
    limits: Arc<ConnectionLimits>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.limits.open.lock();
        open.total -= 1;
        if let Some(count) = open.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn hold(share: &mut Share, bytes: usize) -> bool {
        share.poll_hold(&mut Context::from_waker(Waker::noop()), bytes).is_ready()
    }

    #[test]
    fn small_requests_take_nothing() {
        let budget = ByteBudget::new(1 << 20);
        let mut share = budget.share();
        assert!(hold(&mut share, FREE_BYTES));
        assert_eq!(budget.available_bytes(), 1 << 20);
        assert!(hold(&mut share, FREE_BYTES + 1));
        assert_eq!(budget.available_bytes(), (1 << 20) - CHUNK_BYTES);
        share.shrink_to(FREE_BYTES);
        assert_eq!(budget.available_bytes(), 1 << 20);
    }

    #[test]
    fn what_is_held_comes_back_in_part_and_with_the_drop() {
        let budget = ByteBudget::new(1 << 20);
        let mut share = budget.share();
        assert!(hold(&mut share, 500 << 10));
        share.shrink_to(100 << 10);
        let kept = (100usize << 10).saturating_sub(FREE_BYTES).div_ceil(CHUNK_BYTES) * CHUNK_BYTES;
        assert_eq!(budget.available_bytes(), (1 << 20) - kept);
        drop(share);
        assert_eq!(budget.available_bytes(), 1 << 20);
    }

    #[test]
    fn where_all_is_used_up_one_goes_over_and_the_others_wait() {
        let budget = ByteBudget::new(256 << 10);
        let mut holders: Vec<Share> = (0..4).map(|_| budget.share()).collect();
        for share in &mut holders {
            assert!(hold(share, FREE_BYTES + (64 << 10)));
        }
        assert_eq!(budget.available_bytes(), 0);
        let more = FREE_BYTES + (128 << 10);
        assert!(hold(&mut holders[0], more), "the first goes over");
        assert!(hold(&mut holders[0], 100 << 20), "and stays over until it is done");
        assert!(!hold(&mut holders[1], more));
        assert!(!hold(&mut holders[2], more));
        assert!(holders[1].is_waiting());
        holders[0].shrink_to(0);
        assert!(hold(&mut holders[1], more), "what came back goes to who waited first");
        assert!(hold(&mut holders[2], more), "and the right to go over is free again");
        assert!(!hold(&mut holders[3], more));
        drop(holders);
        assert_eq!(budget.available_bytes(), 256 << 10);
        assert!(hold(&mut budget.share(), more));
    }

    #[test]
    fn connections_are_counted_in_all_and_by_address() {
        let limits = ConnectionLimits::new(3, 2);
        let [a, b]: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        let first = limits.admit(a).unwrap();
        let _second = limits.admit("::ffff:10.0.0.1".parse().unwrap()).unwrap();
        assert_eq!(limits.admit(a).unwrap_err(), Full::Address);
        let _third = limits.admit(b).unwrap();
        assert_eq!(limits.admit(b).unwrap_err(), Full::Total);
        drop(first);
        assert_eq!(limits.open(), 2);
        let _fourth = limits.admit(a).unwrap();
        assert_eq!(limits.open(), 3);
    }
}
