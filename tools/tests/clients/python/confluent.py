"""confluent-kafka-python, which is librdkafka."""
import sys
import threading

import confluent_kafka
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, OffsetSpec, ResourceType,
)

from adapter import Refused, gather, headers_in, record_out, serve, unhex

WAIT = 30
MAX_BYTES = 20_000_000


# What the library logs by itself where nobody asks to be told: connections that went, and that come back.
PASSING = {KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN}


def note_in(errors):
    def told(error):
        print(f"told: {error}", file=sys.stderr, flush=True)
        if error.fatal() or error.code() not in PASSING:
            errors.append(f"told: {error}")
    return told


class Streaming(threading.Thread):
    """Produces until it is over, and until what is on its way has arrived."""

    def __init__(self, config, topic, partitions, producer, per_second):
        super().__init__(daemon=True)
        self.offsets, self.errors, self.is_over = [], [], False
        self.client = Producer(config | {"error_cb": note_in(self.errors)})
        self.topic, self.partitions, self.producer, self.pause = topic, partitions, producer, 1 / per_second

    def report(self, at):
        def told(error, message):
            if error is None:
                self.offsets[at] = [message.partition(), message.offset()]
            else:
                self.errors.append(str(error))
        return told

    def run(self):
        try:
            while not self.is_over:
                at = len(self.offsets)
                self.offsets.append(None)
                value = self.producer.to_bytes(4, "big") + (at // self.partitions).to_bytes(8, "big")
                self.client.produce(self.topic, value=value, partition=at % self.partitions, on_delivery=self.report(at))
                self.client.poll(self.pause)
            # Longer than a message may wait for its delivery.
            self.client.flush(330)
        except Exception as error:
            self.errors.append(repr(error))


class Confluent:
    def __init__(self, bootstrap):
        self.base = {"bootstrap.servers": bootstrap}
        self.made_admin = None
        self.consumer = None
        self.streaming = None
        self.assigned, self.revoked, self.told = set(), [], []

    @property
    def admin(self):
        self.made_admin = self.made_admin or AdminClient(self.base)
        return self.made_admin

    def hello(self):
        version = f"{confluent_kafka.__version__} (librdkafka {confluent_kafka.libversion()[0]})"
        return {"version": version,
                "codecs": ["none", "gzip", "snappy", "lz4", "zstd"], "lacks": []}

    def produce(self, topic, codec, acks, idempotent, records):
        config = {"compression.type": codec, "acks": acks, "enable.idempotence": idempotent,
                  "message.max.bytes": MAX_BYTES, "linger.ms": 5, "partitioner": "murmur2_random"}
        producer = Producer(self.base | config)
        offsets = [None] * len(records)

        def report(at):
            def told(error, message):
                offsets[at] = error or [message.partition(), -1 if message.offset() is None else message.offset()]
            return told

        for at, record in enumerate(records):
            place = {} if record["partition"] is None else {"partition": record["partition"]}
            time = {} if record["timestamp"] is None else {"timestamp": record["timestamp"]}
            producer.produce(topic, key=unhex(record["key"]), value=unhex(record["value"]), headers=headers_in(record),
                             on_delivery=report(at), **place, **time)
            producer.poll(0)
        if producer.flush(WAIT) > 0:
            raise Refused("records not delivered in time", None)
        for failed in (o for o in offsets if not isinstance(o, list)):
            raise KafkaException(failed)
        return {"offsets": offsets}

    def stream(self, topic, partitions, producer, per_second, config):
        self.streaming = Streaming(self.base | config, topic, partitions, producer, per_second)
        self.streaming.start()

    def stream_end(self):
        self.streaming.is_over = True
        self.streaming.join()
        return {"sent": len(self.streaming.offsets), "offsets": self.streaming.offsets, "errors": self.streaming.errors}

    def transaction(self, topic, transactional_id):
        producer = Producer(self.base | {"transactional.id": transactional_id})
        producer.init_transactions(WAIT)
        producer.begin_transaction()
        producer.produce(topic, b"in a transaction")
        producer.commit_transaction(WAIT)

    def open(self, config):
        self.open_with({"enable.auto.commit": False, "fetch.message.max.bytes": 1_000_000} | config)

    def open_with(self, config):
        self.close()
        self.assigned, self.revoked = set(), []
        self.consumer = Consumer(self.base | {"auto.offset.reset": "earliest"} | config)

    def assign(self, topic, partitions, start):
        self.open({"group.id": "unused"})
        places = {"start": confluent_kafka.OFFSET_BEGINNING, "end": confluent_kafka.OFFSET_END}
        wanted = [TopicPartition(topic, p, places.get(start, start)) for p in partitions]
        if start not in places:
            wanted = self.consumer.offsets_for_times(wanted, timeout=WAIT)
        self.consumer.assign(wanted)
        self.assigned = set(partitions)

    def subscribe(self, topic, group, strategy, instance, session_ms):
        strategies = {"eager": "range", "cooperative": "cooperative-sticky"}
        static = {} if instance is None else {"group.instance.id": instance}
        self.open({"group.id": group, "partition.assignment.strategy": strategies[strategy],
                   "session.timeout.ms": session_ms, "heartbeat.interval.ms": session_ms // 6} | static)
        self.subscribe_to(topic)

    def join(self, topic, group):
        self.open_with({"group.id": group, "error_cb": note_in(self.told)})
        self.subscribe_to(topic)

    def subscribe_to(self, topic):
        def on_assign(_, partitions):
            self.assigned |= {p.partition for p in partitions}

        def on_revoke(_, partitions):
            self.assigned -= {p.partition for p in partitions}
            self.revoked += [p.partition for p in partitions]

        self.consumer.subscribe([topic], on_assign=on_assign, on_revoke=on_revoke, on_lost=on_revoke)

    def poll(self, ms):
        def once(seconds):
            message = self.consumer.poll(seconds)
            if message is None:
                return []
            if message.error():
                raise KafkaException(message.error())
            return [record_out(message.partition(), message.offset(), message.timestamp()[1], message.key(),
                               message.value(), message.headers())]

        records = gather(ms, once)
        if self.told:
            raise Refused(self.told[0], None)
        revoked, self.revoked = self.revoked, []
        return {"records": records, "assignment": sorted(self.assigned), "revoked": revoked}

    def commit(self):
        self.consumer.commit(asynchronous=False)

    def close(self):
        if self.consumer is not None:
            self.consumer.close()
        self.consumer = None

    def metadata(self, prefix):
        topics = self.admin.list_topics(timeout=WAIT).topics
        return {"topics": [[t, len(m.partitions)] for t, m in topics.items() if t.startswith(prefix)]}

    def create_topic(self, topic, partitions, configs):
        self.admin.create_topics([NewTopic(topic, partitions, 1, config=configs)])[topic].result(WAIT)

    def create_topics(self, topics):
        for asked in self.admin.create_topics([NewTopic(t, 1, 1) for t in topics], operation_timeout=60).values():
            asked.result(WAIT)

    def delete_topic(self, topic):
        self.admin.delete_topics([topic])[topic].result(WAIT)

    def describe_cluster(self):
        cluster = self.admin.describe_cluster().result(WAIT)
        return {"cluster_id": cluster.cluster_id, "controller": cluster.controller.id,
                "brokers": [[n.id, n.host, n.port] for n in cluster.nodes]}

    def describe_topic(self, topic):
        asked = self.admin.describe_topics(confluent_kafka.TopicCollection([topic]))[topic].result(WAIT)
        return {"partitions": [[p.id, p.leader.id, len(p.replicas), len(p.isr)] for p in asked.partitions]}

    def describe_configs(self, topic):
        resource = ConfigResource(ResourceType.TOPIC, topic)
        found = self.admin.describe_configs([resource])[resource].result(WAIT)
        return {"configs": {name: entry.value for name, entry in found.items()}}

    def alter_configs(self, topic, configs):
        entries = [ConfigEntry(n, v, incremental_operation=AlterConfigOpType.SET) for n, v in configs.items()]
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
        self.admin.incremental_alter_configs([resource])[resource].result(WAIT)

    def create_partitions(self, topic, count):
        self.admin.create_partitions([NewPartitions(topic, count)])[topic].result(WAIT)

    def list_offsets(self, topic, partitions, at):
        specs = {"start": OffsetSpec.earliest(), "end": OffsetSpec.latest()}
        spec = specs.get(at) or OffsetSpec.for_timestamp(at)
        asked = self.admin.list_offsets({TopicPartition(topic, p): spec for p in partitions})
        return {"offsets": [[p.partition, found.result(WAIT).offset] for p, found in asked.items()]}

    def delete_records(self, topic, partition, before):
        place = TopicPartition(topic, partition, before)
        return {"low": self.admin.delete_records([place])[place].result(WAIT).low_watermark}

    def list_groups(self):
        return {"groups": [g.group_id for g in self.admin.list_consumer_groups().result(WAIT).valid]}

    def describe_group(self, group):
        found = self.admin.describe_consumer_groups([group])[group].result(WAIT)
        return {"state": found.state.name, "members": len(found.members)}

    def group_offsets(self, group):
        found = self.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result(WAIT)
        return {"offsets": [[p.topic, p.partition, p.offset] for p in found.topic_partitions]}

    def delete_group(self, group):
        self.admin.delete_consumer_groups([group])[group].result(WAIT)


serve(Confluent(sys.argv[1]))
