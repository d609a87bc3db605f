"""Writes the golden topics with kafka-python: python produce_kafka_python.py ADDRESS records.json"""
import json
import sys

import kafka

LARGE_BYTES = 70_000


def encoded(text):
    return None if text is None else text.encode()


def large():
    lines = (f"line {line} of a value that spans blocks\n" for line in range(LARGE_BYTES))
    value = ""
    while len(value) < LARGE_BYTES:
        value += next(lines)
    return [{"timestamp": 1_700_000_000_000, "key": "large", "value": value[:LARGE_BYTES], "headers": []}]


def send(address, codec, topic, records):
    producer = kafka.KafkaProducer(
        bootstrap_servers=address,
        compression_type=None if codec == "none" else codec,
        enable_idempotence=False,
        linger_ms=2000,
        batch_size=500_000,
    )
    for record in records:
        if record["key"] is None and record["value"] is None:
            continue  # This client refuses to send a record of nothing.
        producer.send(
            topic,
            key=encoded(record["key"]),
            value=encoded(record["value"]),
            # Nor does it send header values that are null.
            headers=[(name, encoded(value)) for name, value in record["headers"] if value is not None],
            partition=0,
            timestamp_ms=record["timestamp"],
        )
    producer.flush()
    producer.close()


def main():
    address, records = sys.argv[1], json.load(open(sys.argv[2]))
    client = f"kafka-python-{kafka.__version__}"
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"]:
        send(address, codec, f"{client}.{codec}", records)
        if codec != "none":
            send(address, codec, f"{client}.{codec}-large", large())


main()
