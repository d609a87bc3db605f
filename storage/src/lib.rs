//! One partition's log on one disk: synchronous, single writer, many readers. Must never know tokio, the network or clusters.
