//! The naive side: nothing is kept but the log itself, and every question is answered by reading it from the start.

use super::*;

#[derive(Debug, Clone, Copy)]
struct Appended {
    header: BatchHeader,
    marker: Option<EndMarker>,
}

#[derive(Debug, Default)]
struct Model {
    log: Vec<Appended>,
    high_watermark: i64,
}

impl Model {
    fn end(&self) -> i64 {
        self.log.last().map_or(0, |a| a.header.next_offset().0)
    }

    fn of(&self, producer: ProducerId) -> impl Iterator<Item = &Appended> {
        self.log.iter().filter(move |a| a.header.producer_id == producer)
    }

    fn epoch(&self, producer: ProducerId) -> Option<i16> {
        self.of(producer).last().map(|a| a.header.producer_epoch)
    }

    /// Data batches since the producer entered its current epoch.
    fn batches_of_epoch(&self, producer: ProducerId) -> Vec<BatchHeader> {
        let epoch = self.epoch(producer);
        let all: Vec<_> = self.of(producer).collect();
        let entered = all.iter().rposition(|a| Some(a.header.producer_epoch) != epoch).map_or(0, |at| at + 1);
        all[entered..].iter().filter(|a| a.marker.is_none()).map(|a| a.header).collect()
    }

    fn open_since(&self, producer: ProducerId) -> Option<Offset> {
        let all: Vec<_> = self.of(producer).collect();
        let after_marker = all.iter().rposition(|a| a.marker.is_some()).map_or(0, |at| at + 1);
        let first = all[after_marker..].iter().find(|a| a.header.attributes.is_transactional());
        first.map(|a| a.header.base_offset)
    }

    fn first_open(&self) -> Option<Offset> {
        (0..PRODUCERS).filter_map(|p| self.open_since(ProducerId(p))).min()
    }

    /// First offsets of transactions that a marker at or past the high watermark ended.
    fn first_unstable(&self) -> Option<Offset> {
        let mut unstable: Vec<Offset> = self.first_open().into_iter().collect();
        for (at, ended) in self.log.iter().enumerate().filter(|(_, a)| a.marker.is_some()) {
            if ended.header.base_offset.0 >= self.high_watermark {
                let before = Model { log: self.log[..at].to_vec(), high_watermark: 0 };
                unstable.extend(before.open_since(ended.header.producer_id));
            }
        }
        unstable.into_iter().min()
    }

    /// `None`: append; `Some(Ok)`: a duplicate at that offset; `Some(Err)`: refused.
    fn judge(&self, header: &BatchHeader) -> Option<Result<Offset, ()>> {
        let producer = header.producer_id;
        let batches = self.batches_of_epoch(producer);
        let epoch = self.epoch(producer)?;
        if epoch == header.producer_epoch {
            let recent = &batches[batches.len().saturating_sub(5)..];
            let same = |b: &&BatchHeader| {
                (b.base_sequence, b.last_offset_delta) == (header.base_sequence, header.last_offset_delta)
            };
            if let Some(known) = recent.iter().find(same) {
                return Some(Ok(known.base_offset));
            }
        }
        let expected = match batches.last() {
            Some(last) if epoch == header.producer_epoch => {
                (i64::from(last.base_sequence) + i64::from(last.record_count)) % (1 << 31)
            }
            _ => 0,
        };
        let outside = self.open_since(producer).is_some() && !header.attributes.is_transactional();
        let refused = header.producer_epoch < epoch || i64::from(header.base_sequence) != expected || outside;
        refused.then_some(Err(()))
    }
}

const PRODUCERS: i64 = 3;

#[derive(Debug, Clone)]
enum Step {
    Send { producer: i64, epoch: i16, sequence: i32, records: i32, is_transactional: bool },
    SendNext { producer: i64, records: i32, is_transactional: bool },
    End { producer: i64, epoch_rise: i16, is_abort: bool },
    HighWatermark(i64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let sequence = prop_oneof![0i32..12, i32::MAX - 3..=i32::MAX];
    prop_oneof![
        3 => (0..PRODUCERS, 0i16..4, sequence, 1i32..4, any::<bool>()).prop_map(
            |(producer, epoch, sequence, records, is_transactional)| Step::Send {
                producer, epoch, sequence, records, is_transactional
            }),
        6 => (0..PRODUCERS, 1i32..4, any::<bool>()).prop_map(
            |(producer, records, is_transactional)| Step::SendNext { producer, records, is_transactional }),
        2 => (0..PRODUCERS, 0i16..2, any::<bool>()).prop_map(
            |(producer, epoch_rise, is_abort)| Step::End { producer, epoch_rise, is_abort }),
        1 => (0i64..20).prop_map(Step::HighWatermark),
        1 => Just(Step::Restart),
    ]
}

fn send(producer: i64, epoch: i16, sequence: i32, records: i32, is_transactional: bool) -> BatchHeader {
    let header = in_epoch(epoch, batch(0, sequence, records));
    BatchHeader {
        producer_id: ProducerId(producer),
        attributes: header.attributes.with_transactional(is_transactional),
        ..header
    }
}

/// Both sides judge the batch, agree, and append it unless it is refused or known.
fn offer(states: &mut ProducerStates, model: &mut Model, header: BatchHeader) {
    let judged = model.judge(&header);
    match states.check(&header, None, Origin::Client) {
        Ok(Verdict::Append) => {
            assert_eq!(judged, None, "{header:?}");
            let header = BatchHeader { base_offset: Offset(model.end()), ..header };
            states.record(&header, None);
            model.log.push(Appended { header, marker: None });
        }
        Ok(Verdict::Duplicate { base_offset, last_offset, .. }) => {
            assert_eq!(judged, Some(Ok(base_offset)), "{header:?}");
            assert_eq!(last_offset - base_offset, i64::from(header.last_offset_delta));
        }
        Err(error) => assert_eq!(judged, Some(Err(())), "{error}"),
    }
}

fn end(states: &mut ProducerStates, model: &mut Model, producer: i64, epoch_rise: i16, is_abort: bool) {
    let epoch = model.epoch(ProducerId(producer)).unwrap_or(0) + epoch_rise;
    let header = BatchHeader { producer_epoch: epoch, ..marker(model.end(), producer) };
    let marker = EndMarker { is_abort, coordinator_epoch: 0 };
    assert_eq!(states.check(&header, Some(&marker), Origin::Coordinator), Ok(Verdict::Append));
    let completed = states.record(&header, Some(&marker));
    let was_open = model.open_since(ProducerId(producer));
    model.log.push(Appended { header, marker: Some(marker) });
    assert_eq!(completed.map(|c| c.first_offset), was_open);
    if let Some(completed) = completed {
        assert_eq!(completed.last_offset, header.base_offset);
        assert_eq!(completed.is_aborted, is_abort);
        assert_eq!(completed.last_stable_offset, model.first_open().unwrap_or(Offset(model.end())));
    }
}

/// A snapshot somewhere in the log and the replay of what follows know of transactions what the running state knows;
/// of batches they know the last one before the snapshot and all after it.
fn restart(states: &ProducerStates, model: &Model, at: usize) {
    let mut early = ProducerStates::default();
    for appended in &model.log[..at] {
        early.record(&appended.header, appended.marker.as_ref());
    }
    let bytes = early.to_snapshot();
    let mut reloaded = ProducerStates::from_snapshot(&bytes, early.end_offset()).expect("our own snapshot");
    assert_eq!(reloaded.to_snapshot(), bytes, "a second snapshot of the same state");
    for appended in &model.log[at..] {
        reloaded.record(&appended.header, appended.marker.as_ref());
    }
    assert_eq!(reloaded.to_snapshot(), states.to_snapshot());
    assert_eq!(reloaded.first_open_offset(), states.first_open_offset());
    assert_eq!(reloaded.end_offset(), states.end_offset());
}

proptest! {
    #[test]
    fn agrees_with_reading_the_whole_log(steps in prop::collection::vec(step(), 1..60)) {
        let mut states = ProducerStates::default();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Send { producer, epoch, sequence, records, is_transactional } => {
                    offer(&mut states, &mut model, send(producer, epoch, sequence, records, is_transactional));
                }
                Step::SendNext { producer, records, is_transactional } => {
                    let known = states.get(ProducerId(producer));
                    let (epoch, sequence) = known.map_or((0, 0), |s| (s.epoch, s.next_sequence()));
                    offer(&mut states, &mut model, send(producer, epoch, sequence, records, is_transactional));
                }
                Step::End { producer, epoch_rise, is_abort } => {
                    end(&mut states, &mut model, producer, epoch_rise, is_abort);
                }
                Step::HighWatermark(back) => {
                    model.high_watermark = model.high_watermark.max(model.end() - back);
                    states.on_high_watermark(Offset(model.high_watermark));
                }
                Step::Restart => restart(&states, &model, model.log.len() / 2),
            }
            prop_assert_eq!(states.end_offset(), Offset(model.end()));
            prop_assert_eq!(states.first_open_offset(), model.first_open());
            prop_assert_eq!(states.first_unstable_offset(), model.first_unstable());
        }
        restart(&states, &model, model.log.len());
    }

    #[test]
    fn no_flipped_bit_passes(sequence in 0i32..1_000, at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let states = states(&[batch(0, sequence, 2)]);
        let mut bytes = states.to_snapshot();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(ProducerStates::from_snapshot(&bytes, Offset(2)).is_err());
    }
}
