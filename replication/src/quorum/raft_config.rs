//! What openraft is told of times and sizes. Each field is named: its own defaults are parsed from a command line, which takes as much code
//! and memory at the start as the rest of it.

use std::time::Duration;

use floodmark_proto::ids::ClusterId;
use openraft::{Config, SnapshotPolicy};

use super::QuorumOptions;

/// Sending and installing a snapshot of the largest size that is taken.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(120);
/// Entries in one message, and how far behind a follower is sent a snapshot instead. As openraft would have them.
const PAYLOAD_ENTRIES_MAX: u64 = 300;
const LAG_THRESHOLD: u64 = 5000;
/// A snapshot goes as a whole (`network`); of what is sent in pieces nothing is used.
const CHUNK_BYTES_MAX: u64 = 3 << 20;

/// For the voter of `cluster_id` that `options` describe.
pub(super) fn of(cluster_id: ClusterId, options: &QuorumOptions) -> Config {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    #[expect(deprecated, reason = "a field that is left out takes all defaults with it")]
    Config {
        cluster_name: cluster_id.to_string(),
        heartbeat_interval: ms(options.timing.heartbeat),
        election_timeout_min: ms(options.timing.election_timeout),
        election_timeout_max: ms(options.timing.lease()),
        install_snapshot_timeout: ms(SNAPSHOT_TIMEOUT),
        send_snapshot_timeout: 0,
        max_payload_entries: PAYLOAD_ENTRIES_MAX,
        replication_lag_threshold: LAG_THRESHOLD,
        // Entries differ in size by a factor of a thousand, so bytes decide, not their number.
        snapshot_policy: SnapshotPolicy::Never,
        snapshot_max_chunk_size: CHUNK_BYTES_MAX,
        max_in_snapshot_log_to_keep: options.snapshots.keep_entries,
        purge_batch_size: 1,
        enable_tick: true,
        enable_heartbeat: true,
        // `candidacy` says when.
        enable_elect: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What no rule of ours sets is as openraft has it, whichever version.
    #[test]
    fn what_is_not_ours_is_as_openraft_has_it() {
        let theirs = Config::default();
        assert_eq!(PAYLOAD_ENTRIES_MAX, theirs.max_payload_entries);
        assert_eq!(LAG_THRESHOLD, theirs.replication_lag_threshold);
        assert_eq!(CHUNK_BYTES_MAX, theirs.snapshot_max_chunk_size);
        assert_eq!((theirs.purge_batch_size, theirs.enable_tick, theirs.enable_heartbeat), (1, true, true));
    }
}
