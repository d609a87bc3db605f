//! CRC-32C (Castagnoli), the checksum of record batches, at hardware speed. Not the CRC-32 of our own files.

use super::header::CRC_COVERS_FROM;

/// CRC-32C of `bytes`.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// The checksum a complete batch should carry; `batch` must hold at least a header.
#[must_use]
pub fn batch_crc(batch: &[u8]) -> u32 {
    crc32c(&batch[CRC_COVERS_FROM..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    #[test]
    fn the_check_value_is_castagnolis() {
        assert_eq!(super::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(super::crc32c(b""), 0);
    }

    proptest! {
        #[test]
        fn another_implementation_agrees(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(super::crc32c(&bytes), ::crc32c::crc32c(&bytes));
        }
    }
}
