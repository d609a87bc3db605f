//! What can be told of a part without its partition, and how its batches are cut for the wire. Pure.

use bytes::Bytes;
use floodmark_proto::batch::BatchHeader;
use floodmark_proto::ids::{LeaderEpoch, Offset};
use floodmark_proto::pb::replica::Part;

use crate::rpc::OWN_PIECE_BYTES_MIN;

/// Bytes of its batches.
pub(crate) fn bytes_of(part: &Part) -> usize {
    part.batches.iter().map(|piece| piece.len()).sum()
}

/// Where a log ends that it was appended to.
pub(crate) fn end_of(part: &Part) -> i64 {
    last_batch(&part.batches).map_or(part.fetch_offset, |last| last.next_offset().0)
}

/// Where batches end, and the epoch of the last one. `None` where there are none.
pub(crate) fn end_of_batches(batches: &[Bytes]) -> Option<(Offset, LeaderEpoch)> {
    last_batch(batches).map(|last| (last.next_offset(), last.leader_epoch))
}

/// Has small batches lie in memory of their own. They came with others in what may be a thousand times as large, and would hold on to it for
/// as long as they are there; large ones came alone.
pub(crate) fn set_apart(part: &mut Part) {
    for piece in part.batches.iter_mut().filter(|piece| piece.len() < OWN_PIECE_BYTES_MIN) {
        *piece = Bytes::copy_from_slice(piece);
    }
}

/// The same batches in pieces of `bytes_max` at most, but for batches that are larger: a piece that does not fit into one frame of the
/// connection is copied where it comes in.
pub(crate) fn cut(batches: Vec<Bytes>, bytes_max: usize) -> Vec<Bytes> {
    if batches.iter().all(|piece| piece.len() <= bytes_max) {
        return batches;
    }
    let mut pieces = Vec::with_capacity(batches.len() + 2);
    for mut rest in batches {
        while rest.len() > bytes_max {
            let whole = whole_batches(&rest, bytes_max);
            pieces.push(rest.split_to(whole));
        }
        if !rest.is_empty() {
            pieces.push(rest);
        }
    }
    pieces
}

/// Bytes of the batches that end within `bytes_max`, or of the first one; all where no batch begins.
fn whole_batches(batches: &[u8], bytes_max: usize) -> usize {
    let mut end = 0;
    while let Ok(header) = BatchHeader::parse(&batches[end..]) {
        let next = end + header.size_bytes();
        if next > bytes_max && end > 0 {
            return end;
        }
        if next >= batches.len() {
            break;
        }
        end = next;
    }
    batches.len()
}

/// The header of the last batch, as far as the pieces are whole batches.
fn last_batch(batches: &[Bytes]) -> Option<BatchHeader> {
    let mut rest: &[u8] = batches.iter().rev().find(|piece| !piece.is_empty())?;
    let mut last = None;
    while let Ok(header) = BatchHeader::parse(rest) {
        last = Some(header);
        match rest.get(header.size_bytes()..) {
            Some(behind) if !behind.is_empty() => rest = behind,
            _ => break,
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use floodmark_proto::batch::{BatchBuilder, NewRecord};

    use super::*;

    fn batch(base: i64, value: usize) -> Bytes {
        let mut builder = BatchBuilder::new().base_offset(Offset(base));
        builder
            .push(&NewRecord { timestamp: 1, key: None, value: Some(&vec![1; value]), headers: &[] })
            .unwrap();
        builder.build().unwrap().freeze()
    }

    fn lengths(pieces: &[Bytes]) -> Vec<usize> {
        pieces.iter().map(Bytes::len).collect()
    }

    #[test]
    fn batches_are_cut_between_two_of_them_and_a_large_one_not_at_all() {
        let batches: Vec<_> = (0..).zip([100, 100, 100, 2000, 50, 3000, 3000, 80]).collect();
        let batches: Vec<_> = batches.into_iter().map(|(base, value)| batch(base, value)).collect();
        let [a, _, _, large, small, larger, _, last] = lengths(&batches)[..] else { panic!("eight of them") };
        let run: Bytes = batches.concat().into();
        let pieces = cut(vec![run.clone()], 3 * a);
        assert_eq!(lengths(&pieces), [3 * a, large, small, larger, larger, last]);
        assert_eq!(pieces.concat(), run);
        assert_eq!(pieces[1].as_ptr(), run[3 * a..].as_ptr(), "nothing is copied");
        assert_eq!(end_of_batches(&pieces), end_of_batches(std::slice::from_ref(&run)));
        assert_eq!(
            lengths(&cut(vec![run.clone()], 3 * a - 1)),
            [2 * a, a, large, small, larger, larger, last]
        );
        assert_eq!(lengths(&cut(vec![run.clone()], run.len() - 1)), [run.len() - last, last]);
        assert_eq!(lengths(&cut(vec![run.clone()], 1)), lengths(&batches));
        // What fits stays as it is, and only what does not is cut.
        assert_eq!(cut(batches.clone(), run.len()), batches);
        assert_eq!(lengths(&cut(vec![run.clone(); 2], run.len())), [run.len(); 2]);
        let mixed = vec![batches[0].clone(), run.slice(..3 * a)];
        assert_eq!(lengths(&cut(mixed, 2 * a)), [a, 2 * a, a]);
    }

    #[test]
    fn what_is_no_batch_is_left_in_one_piece() {
        let whole = batch(0, 100);
        for tail in [&[][..], &[0; 10], &[9; 500], &whole[..whole.len() - 1]] {
            let run: Bytes = [&whole[..], tail].concat().into();
            assert_eq!(cut(vec![run.clone()], 10).concat(), run);
        }
        assert_eq!(cut(vec![Bytes::from(vec![0; 500])], 10).len(), 1);
        assert_eq!(cut(vec![], 10), Vec::<Bytes>::new());
    }
}
