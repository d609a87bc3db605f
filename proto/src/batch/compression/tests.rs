//! Round trips, bombs, damage, and the framings that other clients write.

use std::io::Write;

use proptest::prelude::*;

use super::*;

const LIMITS: DecompressLimits = DecompressLimits::DEFAULT;
const CODECS: [CompressionType; 4] =
    [CompressionType::Gzip, CompressionType::Snappy, CompressionType::Lz4, CompressionType::Zstd];

fn packed(codec: CompressionType, input: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    compress(codec, None, input, &mut out).unwrap();
    out
}

fn unpacked(codec: CompressionType, input: &[u8], limits: &DecompressLimits) -> Result<Vec<u8>, BatchError> {
    let mut out = Vec::new();
    decompress(codec, input, limits, &mut out).map(|()| out)
}

/// Bytes that compress somewhat: runs, repeats and noise.
fn mixed(len: usize) -> Vec<u8> {
    (0..len as u32)
        .map(|at| if at % 7 < 4 { (at / 1000) as u8 } else { at.wrapping_mul(2_654_435_761) as u8 })
        .collect()
}

#[test]
fn sizes_around_block_bounds_round_trip() {
    for codec in CompressionType::ALL {
        for len in [0, 1, 7, 1000, (32 << 10) - 1, 32 << 10, 64 << 10, (64 << 10) + 1, 1 << 20] {
            let input = mixed(len);
            assert_eq!(unpacked(codec, &packed(codec, &input), &LIMITS), Ok(input), "{codec:?} {len}");
        }
    }
}

#[test]
fn compress_appends_and_decompress_replaces() {
    for codec in CompressionType::ALL {
        let mut out = b"head".to_vec();
        compress(codec, None, b"body", &mut out).unwrap();
        assert!(out.starts_with(b"head"));
        let mut back = b"what was there".to_vec();
        decompress(codec, &out[4..], &LIMITS, &mut back).unwrap();
        assert_eq!(back, b"body");
    }
}

#[test]
fn levels_are_checked() {
    for (codec, level, good) in [
        (CompressionType::Gzip, 1, true),
        (CompressionType::Gzip, 9, true),
        (CompressionType::Gzip, 0, false),
        (CompressionType::Gzip, 10, false),
        (CompressionType::Zstd, -5, true),
        (CompressionType::Zstd, 22, true),
        (CompressionType::Zstd, 23, false),
        (CompressionType::Lz4, 1, false),
        (CompressionType::Snappy, 1, false),
        (CompressionType::None, 1, false),
    ] {
        let mut out = Vec::new();
        let done = compress(codec, Some(level), &mixed(5000), &mut out);
        assert_eq!(done.is_ok(), good, "{codec:?} {level}: {done:?}");
        if good {
            assert_eq!(unpacked(codec, &out, &LIMITS), Ok(mixed(5000)));
        } else {
            assert!(matches!(done, Err(BatchError::Compress { .. })));
        }
    }
}

#[test]
fn levels_reach_the_encoder() {
    let input: Vec<u8> = (0..20_000u32).flat_map(|at| (at * at % 9973).to_le_bytes()).collect();
    for (codec, low, high) in [(CompressionType::Gzip, 1, 9), (CompressionType::Zstd, 1, 19)] {
        let [mut small, mut large] = [Vec::new(), Vec::new()];
        compress(codec, Some(high), &input, &mut small).unwrap();
        compress(codec, Some(low), &input, &mut large).unwrap();
        assert!(small.len() < large.len(), "{codec:?}: {} {}", small.len(), large.len());
    }
}

#[test]
fn every_cut_is_refused() {
    for codec in CODECS {
        let input = packed(codec, &mixed(300));
        for len in 0..input.len() {
            let cut = unpacked(codec, &input[..len], &LIMITS);
            // Sixteen bytes are a whole xerial header, which is how no bytes at all are written.
            let is_empty_snappy = codec == CompressionType::Snappy && len == 16;
            assert_eq!(cut.is_ok(), is_empty_snappy, "{codec:?} cut at {len}: {cut:?}");
        }
    }
}

#[test]
fn trailing_bytes_are_refused() {
    for codec in CODECS {
        for tail in [&b"\0"[..], b"garbage that follows", &[0; 64]] {
            let input = [&packed(codec, &mixed(300))[..], tail].concat();
            let refused = unpacked(codec, &input, &LIMITS);
            // Four zero bytes are an empty block in snappy's framing, and an empty block is no snappy block.
            assert!(
                matches!(refused, Err(BatchError::TrailingBytes(_) | BatchError::Decompress { .. })),
                "{codec:?}: {refused:?}"
            );
        }
    }
}

#[test]
fn bombs_stop_at_either_cap() {
    let zeros = vec![0; 8 << 20];
    for codec in CODECS {
        let input = packed(codec, &zeros);
        let by_bytes = DecompressLimits { max_bytes: zeros.len() - 1, max_ratio: usize::MAX };
        assert_eq!(
            unpacked(codec, &input, &by_bytes),
            Err(BatchError::Bomb { limit_bytes: zeros.len() - 1, compressed_bytes: input.len() }),
            "{codec:?}"
        );
        let by_ratio = DecompressLimits { max_bytes: usize::MAX, max_ratio: 10 };
        let limit_bytes = (input.len() * 10).max(RATIO_FLOOR_BYTES);
        assert_eq!(
            unpacked(codec, &input, &by_ratio),
            Err(BatchError::Bomb { limit_bytes, compressed_bytes: input.len() }),
            "{codec:?}"
        );
        // A buffer with room to spare must not widen the cap.
        let mut roomy = Vec::with_capacity(16 << 20);
        let refused = decompress(codec, &input, &by_bytes, &mut roomy);
        assert!(matches!(refused, Err(BatchError::Bomb { .. })), "{codec:?}");
        let exact = DecompressLimits { max_bytes: zeros.len(), max_ratio: usize::MAX };
        assert_eq!(unpacked(codec, &input, &exact).map(|out| out.len()), Ok(zeros.len()), "{codec:?}");
    }
}

#[test]
fn the_floor_lets_small_extremes_pass() {
    let zeros = vec![0; RATIO_FLOOR_BYTES];
    for codec in CODECS {
        let strict = DecompressLimits { max_bytes: usize::MAX, max_ratio: 1 };
        assert_eq!(unpacked(codec, &packed(codec, &zeros), &strict).map(|out| out.len()), Ok(zeros.len()));
    }
}

#[test]
fn no_payload_outgrows_its_codecs_expansion() {
    let zeros = vec![0; 4 << 20];
    for codec in CODECS {
        let input = packed(codec, &zeros);
        assert!(input.len() * codec.expansion_max() as usize >= zeros.len(), "{codec:?}: {}", input.len());
    }
}

#[test]
fn claims_reserve_nothing() {
    // A raw snappy block that claims 4 GiB, a zstd frame that states 1 TiB, an lz4 frame with blocks of 4 MiB.
    let snappy = [0xff, 0xff, 0xff, 0xff, 0x0f, 0];
    let zstd = [0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0];
    let mut lz4 = b"\x04\x22\x4d\x18\x60\x70".to_vec();
    lz4.push((twox_hash::XxHash32::oneshot(0, &lz4[4..]) >> 8) as u8);
    lz4.extend_from_slice(&[1, 0, 0, 0, 0xff]);
    let all = DecompressLimits { max_bytes: usize::MAX, max_ratio: usize::MAX };
    for (codec, input) in
        [(CompressionType::Snappy, &snappy[..]), (CompressionType::Zstd, &zstd), (CompressionType::Lz4, &lz4)]
    {
        let mut out = Vec::new();
        let refused = decompress(codec, input, &all, &mut out);
        assert!(matches!(refused, Err(BatchError::Decompress { .. })), "{codec:?}: {refused:?}");
        assert!(out.capacity() <= 1 << 20, "{codec:?} reserved {}", out.capacity());
    }
}

#[test]
fn raw_snappy_blocks_are_read() {
    let raw = snap::raw::Encoder::new().compress_vec(&mixed(5000)).unwrap();
    assert_eq!(unpacked(CompressionType::Snappy, &raw, &LIMITS), Ok(mixed(5000)));
}

#[test]
fn snappys_own_stream_format_is_refused() {
    let mut stream = snap::write::FrameEncoder::new(Vec::new());
    stream.write_all(&mixed(5000)).unwrap();
    let refused = unpacked(CompressionType::Snappy, &stream.into_inner().unwrap(), &LIMITS);
    assert!(matches!(refused, Err(BatchError::Decompress { .. })));
}

#[test]
fn every_legal_lz4_frame_is_read() {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    let input = mixed(5 << 20);
    for size in [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max1MB, BlockSize::Max4MB] {
        for mode in [BlockMode::Independent, BlockMode::Linked] {
            for (blocks, content) in [(false, false), (true, true)] {
                let info = FrameInfo::new()
                    .block_size(size)
                    .block_mode(mode)
                    .block_checksums(blocks)
                    .content_checksum(content)
                    .content_size(content.then_some(input.len() as u64));
                let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
                encoder.write_all(&input).unwrap();
                let mut frame = encoder.finish().unwrap();
                assert!(unpacked(CompressionType::Lz4, &frame, &LIMITS).is_ok_and(|out| out == input));
                if content {
                    let at = frame.len() - 1;
                    frame[at] ^= 1;
                    let refused = unpacked(CompressionType::Lz4, &frame, &LIMITS);
                    assert!(matches!(refused, Err(BatchError::Decompress { .. })));
                }
            }
        }
    }
}

#[test]
fn the_lz4_header_is_judged() {
    let good = packed(CompressionType::Lz4, b"abc");
    assert_eq!(good[4..6], [0x60, 0x40], "independent blocks of 64 KiB, no checksums");
    for (flags, block, reason) in [
        (0xa0, 0x40, "version"),
        (0x62, 0x40, "version"),
        (0x61, 0x40, "dictionary"),
        (0x60, 0x30, "block size"),
        (0x60, 0x41, "block size"),
    ] {
        let mut frame = good.clone();
        (frame[4], frame[5]) = (flags, block);
        let refused = unpacked(CompressionType::Lz4, &frame, &LIMITS).unwrap_err().to_string();
        assert!(refused.contains(reason), "{refused}");
    }
    let mut frame = good;
    frame[6] ^= 1;
    assert!(unpacked(CompressionType::Lz4, &frame, &LIMITS).is_err());
}

#[test]
fn one_payload_is_one_frame() {
    for codec in [CompressionType::Gzip, CompressionType::Lz4, CompressionType::Zstd] {
        let second = packed(codec, b"two");
        let input = [packed(codec, b"one"), second.clone()].concat();
        assert_eq!(
            unpacked(codec, &input, &LIMITS),
            Err(BatchError::TrailingBytes(second.len())),
            "{codec:?}"
        );
    }
}

#[test]
fn an_oversized_zstd_run_is_refused_whatever_room_there_is() {
    // A run-length block of 988,758 bytes, where 128 KiB is the most, and empty blocks after it.
    let frame =
        [0x28, 0xb5, 0x2f, 0xfd, 0, 0x58, 0xb2, 0xb2, 0x78, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0];
    for room in [0, 1 << 20, 4 << 20] {
        let refused = decompress(CompressionType::Zstd, &frame, &LIMITS, &mut Vec::with_capacity(room));
        assert!(matches!(refused, Err(BatchError::Decompress { .. })), "{room}: {refused:?}");
    }
}

#[test]
fn zstd_windows_of_any_size_are_read_without_a_window() {
    let input = mixed(200_000);
    for window_log in [17, 21, 27] {
        let mut encoder = ::zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(window_log).unwrap();
        encoder.write_all(&input).unwrap();
        let frame = encoder.finish().unwrap();
        assert_eq!(unpacked(CompressionType::Zstd, &frame, &LIMITS).as_ref(), Ok(&input));
    }
}

proptest! {
    #[test]
    fn anything_round_trips(
        codec in prop::sample::select(CompressionType::ALL.to_vec()),
        input in prop::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..3000),
    ) {
        prop_assert_eq!(unpacked(codec, &packed(codec, &input), &LIMITS), Ok(input));
    }

    #[test]
    fn damage_never_panics_and_never_passes_the_cap(
        codec in prop::sample::select(CODECS.to_vec()),
        input in prop::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 1..2000),
        at: prop::sample::Index,
        flip in 1u8..,
        max_bytes in 0usize..3000,
    ) {
        let mut bytes = packed(codec, &input);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok(out) = unpacked(codec, &bytes, &DecompressLimits { max_bytes, max_ratio: 1024 }) {
            prop_assert!(out.len() <= max_bytes);
        }
    }

    #[test]
    fn noise_never_panics(
        codec in prop::sample::select(CODECS.to_vec()),
        input in prop::collection::vec(any::<u8>(), 0..500),
    ) {
        if let Ok(out) = unpacked(codec, &input, &LIMITS) {
            prop_assert!(out.len() <= input.len() * codec.expansion_max() as usize);
        }
    }
}
