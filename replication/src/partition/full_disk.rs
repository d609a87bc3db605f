//! What the log says of appends that find no space, of all partitions together: that it begins, now and then that it lasts, that it is over.

use std::sync::atomic::{AtomicBool, Ordering};

use floodmark_storage::LogError;

use super::PartitionId;
use crate::lasting::{Trouble, Word};

/// Shared by the partitions of a broker.
#[derive(Debug, Default)]
pub struct FullDisk {
    /// Looked at by every append, so without the lock that the rest is behind.
    is_known: AtomicBool,
    trouble: Trouble,
}

impl FullDisk {
    /// An append to `partition` has ended so.
    pub(super) fn note<T>(&self, partition: &PartitionId, outcome: &Result<T, LogError>) {
        if let Some(word) = self.judge(outcome) {
            tell(word, partition, outcome.as_ref().err());
        }
    }

    /// The last append that was noted found no space.
    pub fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Relaxed)
    }

    fn judge<T>(&self, outcome: &Result<T, LogError>) -> Option<Word> {
        match outcome {
            Err(LogError::Full { .. } | LogError::NoDescriptor { .. }) => {
                self.is_known.store(true, Ordering::Relaxed);
                self.trouble.meet()
            }
            Ok(_) if self.is_known.load(Ordering::Relaxed) => {
                self.is_known.store(false, Ordering::Relaxed);
                self.trouble.end()
            }
            Ok(_) | Err(_) => None,
        }
    }
}

fn tell(word: Word, partition: &PartitionId, error: Option<&LogError>) {
    let error = error.map(tracing::field::display);
    match word {
        Word::Begins => tracing::error!(
            %partition,
            error,
            "records cannot be appended; clients are told to try again; give the disk space, or lower retention"
        ),
        Word::Lasts { times } => {
            tracing::error!(times, %partition, error, "records still cannot be appended, this partition's among the last");
        }
        Word::Over { times } => tracing::info!(times, %partition, "records can be appended again"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn it_is_said_when_it_begins_and_when_it_is_over_and_not_of_other_failures() {
        let disk = FullDisk::default();
        let full = || Err::<(), _>(LogError::Full { path: PathBuf::from("d") });
        assert_eq!(disk.judge(&Ok(())), None);
        assert_eq!(disk.judge(&Err::<(), _>(LogError::Abandoned)), None);
        assert_eq!(disk.judge(&full()), Some(Word::Begins));
        assert_eq!(disk.judge(&full()), None);
        assert_eq!(disk.judge(&Ok(())), Some(Word::Over { times: 1 }));
        assert_eq!(disk.judge(&Ok(())), None);
    }
}
