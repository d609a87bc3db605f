//! Partition data by in-sync replicas and leader epochs, cluster metadata by Raft. Must never know Kafka messages or public protobuf.
