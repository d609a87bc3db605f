//! Partitions that their leaders cannot read now: the others are read on, and without others there is nothing left to wait for.

use std::collections::BTreeMap;

use floodmark_client::Error;

use crate::output::note;

#[derive(Default)]
pub(super) struct Stuck {
    of: BTreeMap<i32, Error>,
}

impl Stuck {
    /// Gives back what is no partition's trouble.
    pub(super) fn on_error(&mut self, error: Error, left: &[i32]) -> Result<(), Error> {
        let Error::Unreadable { partition, .. } = &error else { return Err(error) };
        let partition = *partition;
        if left.iter().any(|other| *other != partition && !self.of.contains_key(other)) {
            note(&format!("{error}; the others are read on"));
        }
        self.of.insert(partition, error);
        Ok(())
    }

    /// Records of it have come.
    pub(super) fn on_records(&mut self, partition: i32) {
        self.of.remove(&partition);
    }

    pub(super) fn is_stuck(&self, partition: i32) -> bool {
        self.of.contains_key(&partition)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// Fails where all that is left to be read, which is something, cannot be.
    pub(super) fn check(&self, left: &[i32]) -> Result<(), Error> {
        let mut first = None;
        for partition in left {
            let Some(error) = self.of.get(partition) else { return Ok(()) };
            first = first.or(Some(error));
        }
        first.map_or(Ok(()), |error| Err(error.clone()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn unreadable(partition: i32) -> Error {
        Error::Unreadable {
            topic: "t".to_owned(),
            partition,
            offset: 7,
            limit: Duration::from_secs(4),
            last: Box::new(Error::Invalid("no".to_owned())),
        }
    }

    #[test]
    fn it_ends_where_nothing_else_is_left() {
        let mut stuck = Stuck::default();
        stuck.check(&[0, 1]).unwrap();
        stuck.on_error(Error::Closed("it"), &[0, 1]).unwrap_err();
        stuck.on_error(unreadable(1), &[0, 1]).unwrap();
        stuck.check(&[0, 1]).unwrap();
        let ended = stuck.check(&[1]).unwrap_err();
        assert!(matches!(ended, Error::Unreadable { partition: 1, .. }), "{ended}");
        stuck.on_error(unreadable(0), &[0, 1]).unwrap();
        stuck.check(&[0, 1]).unwrap_err();
        stuck.on_records(0);
        stuck.check(&[0, 1]).unwrap();
        stuck.on_records(1);
        stuck.check(&[0, 1]).unwrap();
    }
}
