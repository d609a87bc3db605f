//! The frame of the small files beside the Raft log: what kind of file, its version, its length, a message, a checksum. No I/O.
//!
//! ```text
//! 8 bytes kind · u32 version · u64 length · message · u32 CRC-32 of all before     numbers big-endian
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};

const KIND_LEN: usize = 8;
const HEAD_LEN: usize = KIND_LEN + 4 + 8;
const CRC_LEN: usize = 4;
const VERSION: u32 = 1;

/// What a file is, its first eight bytes.
pub(crate) type Kind = [u8; KIND_LEN];

/// Why bytes are no file of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// They begin otherwise.
    #[error("it is another kind of file")]
    Kind,
    /// A newer program wrote them.
    #[error("it has format {found}, newer than {VERSION}, the newest this program reads")]
    NewerVersion {
        /// The version in the file.
        found: u32,
    },
    /// They are not what was written.
    #[error("it is damaged: its length or checksum does not fit")]
    Damaged,
}

/// The whole file around `message`.
pub(crate) fn seal(kind: Kind, message: &impl prost::Message) -> Bytes {
    let len = message.encoded_len();
    let mut file = BytesMut::with_capacity(HEAD_LEN + len + CRC_LEN);
    file.put_slice(&kind);
    file.put_u32(VERSION);
    file.put_u64(len as u64);
    file.put_slice(&message.encode_to_vec());
    file.put_u32(crc32fast::hash(&file));
    file.freeze()
}

/// The message in a file.
pub(crate) fn open(kind: Kind, mut file: Bytes) -> Result<Bytes, SealError> {
    if file.len() < HEAD_LEN + CRC_LEN {
        return Err(SealError::Damaged);
    }
    if !file.starts_with(&kind) {
        return Err(SealError::Kind);
    }
    let mut crc = file.split_off(file.len() - CRC_LEN);
    if crc32fast::hash(&file) != crc.get_u32() {
        return Err(SealError::Damaged);
    }
    file.advance(KIND_LEN);
    let version = file.get_u32();
    if version > VERSION {
        return Err(SealError::NewerVersion { found: version });
    }
    let len = file.get_u64();
    if version < VERSION || len != file.len() as u64 {
        return Err(SealError::Damaged);
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use floodmark_proto::pb::metadata as pb;
    use prost::Message as _;

    use super::*;

    const KIND: Kind = *b"testfile";

    fn sealed() -> (pb::Vote, Bytes) {
        let vote = pb::Vote { term: 7, node: 1, committed: true };
        (vote, seal(KIND, &vote))
    }

    #[test]
    fn what_was_sealed_is_opened() {
        let (vote, file) = sealed();
        assert_eq!(pb::Vote::decode(open(KIND, file).unwrap()).unwrap(), vote);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let (_, file) = sealed();
        for at in 0..file.len() {
            assert!(open(KIND, file.slice(..at)).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut bad = file.to_vec();
                bad[at] ^= 1 << bit;
                assert!(open(KIND, bad.into()).is_err(), "byte {at} bit {bit}");
            }
        }
        let mut longer = file.to_vec();
        longer.push(0);
        assert_eq!(open(KIND, longer.into()), Err(SealError::Damaged));
    }

    #[test]
    fn other_kinds_and_newer_versions_are_told_apart() {
        let (_, file) = sealed();
        assert_eq!(open(*b"anything", file.clone()), Err(SealError::Kind));
        let mut newer = file[..file.len() - CRC_LEN].to_vec();
        newer[KIND_LEN + 3] = 2;
        newer.extend(crc32fast::hash(&newer).to_be_bytes());
        assert_eq!(open(KIND, newer.into()), Err(SealError::NewerVersion { found: 2 }));
    }
}
