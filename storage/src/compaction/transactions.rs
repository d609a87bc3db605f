//! What cleaning must know of transactions: whose data was aborted, which markers have outlived their data, and what must stay so
//! that a producer's sequence goes on. No I/O.

use std::collections::{HashMap, HashSet};

use floodmark_proto::batch::BatchHeader;
use floodmark_proto::ids::{Offset, ProducerId};

use crate::index::AbortedTransaction;
use crate::producers::ProducerStates;

/// Aborted transactions, found by producer and offset.
#[derive(Debug, Clone, Default)]
pub struct AbortedTransactions {
    /// Of each producer in rising order; a producer has one transaction at a time.
    by_producer: HashMap<ProducerId, Vec<AbortedTransaction>>,
}

impl AbortedTransactions {
    /// All that overlap the offsets to be cleaned, markers behind them included.
    #[must_use]
    pub fn new(entries: Vec<AbortedTransaction>) -> AbortedTransactions {
        let mut by_producer: HashMap<ProducerId, Vec<AbortedTransaction>> = HashMap::new();
        for entry in entries {
            by_producer.entry(entry.producer_id).or_default().push(entry);
        }
        for entries in by_producer.values_mut() {
            entries.sort_unstable_by_key(|e| e.last_offset);
        }
        AbortedTransactions { by_producer }
    }

    /// The aborted transaction that a transactional batch or an abort marker belongs to.
    #[must_use]
    pub fn of(&self, header: &BatchHeader) -> Option<&AbortedTransaction> {
        let entries = self.by_producer.get(&header.producer_id)?;
        let at = entries.partition_point(|e| e.last_offset < header.base_offset);
        entries.get(at).filter(|e| e.first_offset <= header.base_offset)
    }

    /// True for data that readers of committed records never see.
    #[must_use]
    pub fn holds(&self, header: &BatchHeader) -> bool {
        let attributes = header.attributes;
        attributes.is_transactional() && !attributes.is_control() && self.of(header).is_some()
    }
}

/// Transactions of which data was met and no marker yet, while a log is read from its start.
#[derive(Debug, Clone, Default)]
pub struct MetTransactions {
    with_data: HashSet<ProducerId>,
}

impl MetTransactions {
    /// Takes note of data, emptied batches included: to a replay of the log they begin a transaction as much as full ones.
    pub fn on_data(&mut self, header: &BatchHeader) {
        if header.attributes.is_transactional() {
            self.with_data.insert(header.producer_id);
        }
    }

    /// Takes note of a marker; true where data of its transaction was met.
    pub fn on_marker(&mut self, header: &BatchHeader) -> bool {
        self.with_data.remove(&header.producer_id)
    }
}

/// The last trace of each live producer, which must stay for its sequence and epoch to survive.
#[derive(Debug, Clone, Default)]
pub struct LastOfProducers {
    by_producer: HashMap<ProducerId, LastOfProducer>,
}

#[derive(Debug, Clone, Copy)]
struct LastOfProducer {
    /// `None` where the current epoch has written nothing but markers.
    last_data: Option<Offset>,
    epoch: i16,
}

impl LastOfProducers {
    /// Of the producers that are remembered now; those forgotten have nothing to keep.
    #[must_use]
    pub fn new(producers: &ProducerStates) -> LastOfProducers {
        let last = |p: &crate::producers::ProducerState| LastOfProducer {
            last_data: p.last_batch().map(|b| b.last_offset),
            epoch: p.epoch,
        };
        LastOfProducers { by_producer: producers.iter().map(|p| (p.producer_id, last(p))).collect() }
    }

    /// True where the batch carries the last sequence number of its producer or, where there is none, its epoch.
    #[must_use]
    pub fn includes(&self, header: &BatchHeader) -> bool {
        if header.producer_id.0 < 0 {
            return false;
        }
        self.by_producer.get(&header.producer_id).is_some_and(|last| match last.last_data {
            Some(offset) => header.last_offset() == offset,
            None => header.attributes.is_control() && header.producer_epoch == last.epoch,
        })
    }
}
