"""Writes the golden topics with librdkafka, through confluent-kafka: python produce_confluent.py ADDRESS records.json"""
import json
import sys

import confluent_kafka

LARGE_BYTES = 70_000


def encoded(text):
    return None if text is None else text.encode()


def large():
    value = ""
    line = 0
    while len(value) < LARGE_BYTES:
        value += f"line {line} of a value that spans blocks\n"
        line += 1
    return [{"timestamp": 1_700_000_000_000, "key": "large", "value": value[:LARGE_BYTES], "headers": []}]


def send(address, codec, topic, records):
    producer = confluent_kafka.Producer(
        {"bootstrap.servers": address, "compression.type": codec, "linger.ms": 2000, "acks": "all"}
    )
    for record in records:
        producer.produce(
            topic,
            key=encoded(record["key"]),
            value=encoded(record["value"]),
            headers=[(name, encoded(value)) for name, value in record["headers"]],
            partition=0,
            timestamp=record["timestamp"],
        )
    producer.flush()


def main():
    address, records = sys.argv[1], json.load(open(sys.argv[2]))
    client = f"librdkafka-{confluent_kafka.libversion()[0]}"
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"]:
        send(address, codec, f"{client}.{codec}", records)
        if codec != "none":
            send(address, codec, f"{client}.{codec}-large", large())


main()
