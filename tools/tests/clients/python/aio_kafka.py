"""aiokafka. Its event loop has a thread of its own, so that heartbeats go on while no request is being answered."""
import asyncio
import inspect
import sys
import threading

import aiokafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.assignors.range import RangePartitionAssignor

from adapter import Refused, Unsupported, headers_in, record_out, serve, unhex

WAIT = 30
MAX_BYTES = 20_000_000


class Watcher(ConsumerRebalanceListener):
    def __init__(self):
        self.revoked = []

    def on_partitions_assigned(self, assigned):
        pass

    def on_partitions_revoked(self, revoked):
        self.revoked += [p.partition for p in revoked]


def check(errors):
    """aiokafka hands the answer on as it came: look for an error code in it."""
    for name, code, message, *_ in errors:
        if code:
            raise Refused(f"{name}: {code} {message}", code)


class AioKafka:
    def __init__(self, bootstrap):
        self.base = {"bootstrap_servers": bootstrap}
        self.made_admin = None
        self.consumer = None
        self.watcher = Watcher()

    async def admin(self):
        if self.made_admin is None:
            self.made_admin = AIOKafkaAdminClient(**self.base)
            await self.made_admin.start()
        return self.made_admin

    async def hello(self):
        return {"version": aiokafka.__version__,
                "codecs": ["none", "gzip", "snappy", "lz4", "zstd"], "lacks": ["null record"]}

    async def produce(self, topic, codec, acks, idempotent, records):
        producer = AIOKafkaProducer(
            **self.base, compression_type=None if codec == "none" else codec, acks=acks if acks == "all" else int(acks),
            enable_idempotence=idempotent, max_request_size=MAX_BYTES, linger_ms=5)
        await producer.start()
        try:
            sent = [await producer.send(topic, key=unhex(r["key"]), value=unhex(r["value"]), headers=headers_in(r),
                                        partition=r["partition"], timestamp_ms=r["timestamp"]) for r in records]
            told = await asyncio.wait_for(asyncio.gather(*sent), WAIT)
            # With acks=0 nothing is told.
            return {"offsets": [[-1, -1] if t is None else [t.partition, t.offset] for t in told]}
        finally:
            await producer.stop()

    async def transaction(self, topic, transactional_id):
        producer = AIOKafkaProducer(**self.base, transactional_id=transactional_id)
        try:
            await producer.start()
            async with producer.transaction():
                await producer.send_and_wait(topic, b"in a transaction")
        finally:
            await producer.stop()

    async def open(self, **config):
        await self.close()
        self.watcher = Watcher()
        self.consumer = AIOKafkaConsumer(**self.base, auto_offset_reset="earliest", enable_auto_commit=False, **config)

    async def assign(self, topic, partitions, start):
        await self.open()
        places = [TopicPartition(topic, p) for p in partitions]
        self.consumer.assign(places)
        await self.consumer.start()
        if start == "start":
            await self.consumer.seek_to_beginning(*places)
        elif start == "end":
            await self.consumer.seek_to_end(*places)
        else:
            for place, found in (await self.consumer.offsets_for_times({p: start for p in places})).items():
                if found:
                    self.consumer.seek(place, found.offset)
                else:
                    await self.consumer.seek_to_end(place)

    async def subscribe(self, topic, group, strategy, instance, session_ms):
        if strategy != "eager":
            raise Unsupported("aiokafka has no cooperative assignor")
        await self.open(group_id=group, partition_assignment_strategy=[RangePartitionAssignor],
                        group_instance_id=instance, session_timeout_ms=session_ms,
                        heartbeat_interval_ms=session_ms // 6)
        self.consumer.subscribe([topic], listener=self.watcher)
        await self.consumer.start()

    async def poll(self, ms):
        batches = (await self.consumer.getmany(timeout_ms=ms)).values()
        records = [record_out(r.partition, r.offset, r.timestamp, r.key, r.value, r.headers) for b in batches for r in b]
        revoked, self.watcher.revoked = self.watcher.revoked, []
        return {"records": records, "assignment": sorted(p.partition for p in self.consumer.assignment()),
                "revoked": revoked}

    async def commit(self):
        await self.consumer.commit()

    async def close(self):
        if self.consumer is not None:
            await self.consumer.stop()
        self.consumer = None

    async def metadata(self, prefix):
        topics = await (await self.admin()).describe_topics()
        return {"topics": [[t["topic"], len(t["partitions"])] for t in topics if t["topic"].startswith(prefix)]}

    async def create_topic(self, topic, partitions, configs):
        told = await (await self.admin()).create_topics([NewTopic(topic, partitions, 1, topic_configs=configs)])
        check(told.topic_errors)

    async def delete_topic(self, topic):
        told = await (await self.admin()).delete_topics([topic])
        check((*error, None) for error in told.topic_error_codes)

    async def describe_cluster(self):
        cluster = await (await self.admin()).describe_cluster()
        return {"cluster_id": cluster["cluster_id"], "controller": cluster["controller_id"],
                "brokers": [[b["node_id"], b["host"], b["port"]] for b in cluster["brokers"]]}

    async def describe_topic(self, topic):
        found = (await (await self.admin()).describe_topics([topic]))[0]
        check([(topic, found["error_code"], None)])
        return {"partitions": [[p["partition"], p["leader"], len(p["replicas"]), len(p["isr"])]
                               for p in found["partitions"]]}

    async def describe_configs(self, topic):
        told = await (await self.admin()).describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        code, message, _, _, entries = told[0].resources[0][:5]
        check([(topic, code, message)])
        return {"configs": {entry[0]: entry[1] for entry in entries}}

    async def alter_configs(self, topic, configs):
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, configs=configs)
        told = await (await self.admin()).alter_configs([resource])
        check((name, code, message) for answer in told for code, message, _, name in answer.resources)

    async def create_partitions(self, topic, count):
        await (await self.admin()).create_partitions({topic: NewPartitions(count)})

    async def list_offsets(self, topic, partitions, at):
        consumer = AIOKafkaConsumer(**self.base)
        await consumer.start()
        places = [TopicPartition(topic, p) for p in partitions]
        try:
            if at == "start":
                found = await consumer.beginning_offsets(places)
            elif at == "end":
                found = await consumer.end_offsets(places)
            else:
                times = await consumer.offsets_for_times({p: at for p in places})
                found = {p: place.offset if place else -1 for p, place in times.items()}
            return {"offsets": [[p.partition, offset] for p, offset in found.items()]}
        finally:
            await consumer.stop()

    async def delete_records(self, topic, partition, before):
        place = TopicPartition(topic, partition)
        return {"low": (await (await self.admin()).delete_records({place: RecordsToDelete(before)}))[place]}

    async def list_groups(self):
        return {"groups": [name for name, *_ in await (await self.admin()).list_consumer_groups()]}

    async def describe_group(self, group):
        told = await (await self.admin()).describe_consumer_groups([group])
        code, name, state, _, _, members = told[0].groups[0][:6]
        check([(name, code, None)])
        return {"state": state, "members": len(members)}

    async def group_offsets(self, group):
        found = await (await self.admin()).list_consumer_group_offsets(group)
        return {"offsets": [[p.topic, p.partition, place.offset] for p, place in found.items()]}


class OnItsLoop:
    """The same functions, called from the thread that reads requests."""

    def __init__(self, client):
        self.client = client
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def __getattr__(self, name):
        function = getattr(self.client, name)
        if not inspect.iscoroutinefunction(function):
            raise AttributeError(name)
        return lambda **request: asyncio.run_coroutine_threadsafe(function(**request), self.loop).result()


serve(OnItsLoop(AioKafka(sys.argv[1])))
