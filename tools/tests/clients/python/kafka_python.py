"""kafka-python, written in Python alone."""
import sys

import kafka
from kafka import ConsumerRebalanceListener, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, OffsetSpec
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor

from adapter import Refused, gather, headers_in, record_out, serve, unhex

WAIT = 30
MAX_BYTES = 20_000_000


class Watcher(ConsumerRebalanceListener):
    def __init__(self):
        self.revoked = []

    def on_partitions_assigned(self, assigned):
        pass

    def on_partitions_revoked(self, revoked):
        self.revoked += [p.partition for p in revoked]

    on_partitions_lost = on_partitions_revoked


class KafkaPython:
    def __init__(self, bootstrap):
        self.base = {"bootstrap_servers": bootstrap}
        self.made_admin = None
        self.consumer = None
        self.watcher = Watcher()

    @property
    def admin(self):
        self.made_admin = self.made_admin or KafkaAdminClient(**self.base)
        return self.made_admin

    def hello(self):
        return {"version": kafka.__version__,
                "codecs": ["none", "gzip", "snappy", "lz4", "zstd"], "lacks": ["null header", "null record"]}

    def produce(self, topic, codec, acks, idempotent, records):
        producer = KafkaProducer(
            **self.base, compression_type=None if codec == "none" else codec, acks=acks if acks == "all" else int(acks),
            enable_idempotence=idempotent, max_request_size=MAX_BYTES, linger_ms=5)
        try:
            sent = [producer.send(topic, key=unhex(r["key"]), value=unhex(r["value"]), headers=headers_in(r),
                                  partition=r["partition"], timestamp_ms=r["timestamp"]) for r in records]
            producer.flush(WAIT)
            told = [future.get(WAIT) for future in sent]
            return {"offsets": [[t.partition, t.offset] for t in told]}
        finally:
            producer.close(WAIT)

    def transaction(self, topic, transactional_id):
        producer = KafkaProducer(**self.base, transactional_id=transactional_id)
        try:
            producer.init_transactions()
            producer.begin_transaction()
            producer.send(topic, b"in a transaction")
            producer.commit_transaction()
        finally:
            producer.close(WAIT)

    def open(self, **config):
        self.close()
        self.watcher = Watcher()
        self.consumer = KafkaConsumer(**self.base, auto_offset_reset="earliest", enable_auto_commit=False, **config)

    def assign(self, topic, partitions, start):
        self.open()
        places = [TopicPartition(topic, p) for p in partitions]
        self.consumer.assign(places)
        if start == "start":
            self.consumer.seek_to_beginning(*places)
        elif start == "end":
            self.consumer.seek_to_end(*places)
        else:
            for place, found in self.consumer.offsets_for_times({p: start for p in places}).items():
                self.consumer.seek(place, found.offset) if found else self.consumer.seek_to_end(place)

    def subscribe(self, topic, group, strategy, instance, session_ms):
        assignor = {"eager": RangePartitionAssignor, "cooperative": CooperativeStickyAssignor}[strategy]
        self.open(group_id=group, partition_assignment_strategy=[assignor], group_instance_id=instance,
                  session_timeout_ms=session_ms, heartbeat_interval_ms=session_ms // 6)
        self.consumer.subscribe([topic], listener=self.watcher)
        # Where the group is quicker than the topic's metadata, its leader assigns nothing and leaves it at that.
        self.consumer.partitions_for_topic(topic)

    def poll(self, ms):
        def once(seconds):
            batches = self.consumer.poll(timeout_ms=int(seconds * 1000)).values()
            return [record_out(r.partition, r.offset, r.timestamp, r.key, r.value, r.headers) for b in batches for r in b]

        records = gather(ms, once)
        revoked, self.watcher.revoked = self.watcher.revoked, []
        return {"records": records, "assignment": sorted(p.partition for p in self.consumer.assignment()),
                "revoked": revoked}

    def commit(self):
        self.consumer.commit()

    def close(self):
        if self.consumer is not None:
            self.consumer.close(autocommit=False)
        self.consumer = None

    def metadata(self, prefix):
        topics = self.admin.describe_topics()
        return {"topics": [[t["name"], len(t["partitions"])] for t in topics if t["name"].startswith(prefix)]}

    def create_topic(self, topic, partitions, configs):
        self.admin.create_topics({topic: {"num_partitions": partitions, "replication_factor": 1, "configs": configs}})

    def create_topics(self, topics):
        self.admin.create_topics({t: {"num_partitions": 1, "replication_factor": 1} for t in topics}, timeout_ms=60_000)

    def delete_topic(self, topic):
        self.admin.delete_topics([topic])

    def describe_cluster(self):
        cluster = self.admin.describe_cluster()
        return {"cluster_id": cluster["cluster_id"], "controller": cluster["controller_id"],
                "brokers": [[b["broker_id"], b["host"], b["port"]] for b in cluster["brokers"]]}

    def describe_topic(self, topic):
        partitions = self.admin.describe_topics([topic])[0]["partitions"]
        return {"partitions": [[p["partition_index"], p["leader_id"], len(p["replica_nodes"]), len(p["isr_nodes"])]
                               for p in partitions]}

    def describe_configs(self, topic):
        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        found = self.admin.describe_configs([resource], config_filter="all")["topic"][topic]
        return {"configs": {name: entry["value"] for name, entry in found.items()}}

    def alter_configs(self, topic, configs):
        self.admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=configs)])

    def create_partitions(self, topic, count):
        self.admin.create_partitions({topic: count})

    def list_offsets(self, topic, partitions, at):
        spec = {"start": OffsetSpec.EARLIEST, "end": OffsetSpec.LATEST}.get(at, at)
        found = self.admin.list_partition_offsets({TopicPartition(topic, p): spec for p in partitions})
        return {"offsets": [[p.partition, place.offset] for p, place in found.items()]}

    def delete_records(self, topic, partition, before):
        place = TopicPartition(topic, partition)
        return {"low": self.admin.delete_records({place: before})[place]["low_watermark"]}

    def list_groups(self):
        return {"groups": [g["group_id"] for g in self.admin.list_groups()]}

    def describe_group(self, group):
        found = self.admin.describe_groups([group])[group]
        return {"state": found["group_state"], "members": len(found["members"])}

    def group_offsets(self, group):
        found = self.admin.list_group_offsets(group)[group]
        return {"offsets": [[p.topic, p.partition, place.offset] for p, place in found.items()]}

    def delete_group(self, group):
        told = self.admin.delete_groups([group])[group]
        if told != "OK":
            raise Refused(told, None)

    def log_dirs(self, topic):
        brokers = self.admin.describe_log_dirs([topic])
        topics = [t for b in brokers for d in b["log_dirs"] for t in d["topics"] if t["name"] == topic]
        return {"size": sum(p["partition_size"] for t in topics for p in t["partitions"])}


serve(KafkaPython(sys.argv[1]))
