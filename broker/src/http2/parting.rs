//! Why a server ends a connection, seen in the frames that it writes: it tells its caller (HTTP/2's GOAWAY with a code), and nobody here.

/// Bytes before the payload of each frame.
const HEAD_BYTES: usize = 9;
/// Of them and of GOAWAY's payload, as many as say the code.
const PARTING_BYTES: usize = HEAD_BYTES + 8;
/// GOAWAY by its number.
const PARTING: u8 = 7;

/// Follows what is written from frame to frame, without looking at payloads.
#[derive(Debug, Default)]
pub(super) struct Parting {
    /// The beginning of the frame under way.
    head: [u8; PARTING_BYTES],
    have: usize,
    /// What is left of the payload of the frame under way.
    skip: usize,
}

impl Parting {
    /// What was written next. The code with which the connection is ended, where that is because of its caller.
    pub(super) fn on_written(&mut self, mut written: &[u8]) -> Option<u32> {
        while !written.is_empty() {
            let skipped = self.skip.min(written.len());
            self.skip -= skipped;
            written = written.get(skipped..)?;
            let missing = self.wanted() - self.have;
            let (taken, rest) = written.split_at(missing.min(written.len()));
            self.head.get_mut(self.have..self.have + taken.len())?.copy_from_slice(taken);
            self.have += taken.len();
            written = rest;
            if self.have < self.wanted() {
                continue;
            }
            let [a, b, c, ..] = self.head;
            let payload = u32::from_be_bytes([0, a, b, c]) as usize;
            let code = (self.have == PARTING_BYTES).then(|| self.head.last_chunk().copied()).flatten();
            self.skip = payload.saturating_sub(self.have - HEAD_BYTES);
            self.have = 0;
            if let Some(code) = code.map(u32::from_be_bytes).filter(|code| *code != 0) {
                return Some(code);
            }
        }
        None
    }

    /// How much of this frame has to be seen.
    fn wanted(&self) -> usize {
        let is_parting = self.have >= HEAD_BYTES && self.head.get(3) == Some(&PARTING);
        if is_parting { PARTING_BYTES } else { HEAD_BYTES }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let bytes = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&bytes[1..], &[kind, 0, 0, 0, 0, 0], payload].concat()
    }

    fn goaway(code: u32, text: &[u8]) -> Vec<u8> {
        frame(PARTING, &[&[0, 0, 0, 3], &code.to_be_bytes()[..], text].concat())
    }

    #[test]
    fn a_code_is_seen_wherever_writes_are_cut() {
        let before =
            [frame(4, &[]), frame(0, &[PARTING; 300]), goaway(0, b"bye"), frame(8, &[1; 4])].concat();
        for (said, code) in
            [(goaway(1, b"unspecific"), Some(1)), (goaway(0x0b, b""), Some(11)), (goaway(0, b""), None)]
        {
            let bytes = [&before[..], &said].concat();
            for size in [1, 2, 5, 9, 16, 17, 100, 1000] {
                let mut parting = Parting::default();
                let seen: Vec<u32> =
                    bytes.chunks(size).filter_map(|piece| parting.on_written(piece)).collect();
                assert_eq!(seen.first().copied(), code, "in pieces of {size}");
            }
        }
    }
}
