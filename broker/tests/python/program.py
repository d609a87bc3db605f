"""What somebody writes who has the .proto files and nothing else: makes a topic, produces, subscribes, reads a stream. Ends with 0 where all of it holds.

Usage: program.py ADDRESS, with the generated modules on PYTHONPATH.
"""

import sys

import grpc
from google.rpc import error_details_pb2, status_pb2

from floodmark.v1 import admin_pb2, admin_pb2_grpc, data_pb2, data_pb2_grpc, events_pb2, events_pb2_grpc, types_pb2

TOPIC = "from-python"
DEADLINE_S = 30


def make_topic(channel):
    admin = admin_pb2_grpc.AdminStub(channel)
    topic = admin_pb2.NewTopic(name=TOPIC, partitions=1, settings={"floodmark.key.index": "true"})
    reply = admin.CreateTopics(admin_pb2.CreateTopicsRequest(topics=[topic]), timeout=DEADLINE_S)
    assert not reply.topics[0].HasField("error"), reply
    described = admin.DescribeTopics(admin_pb2.DescribeTopicsRequest(topics=[TOPIC]), timeout=DEADLINE_S)
    assert described.topics[0].partitions[0].leader == described.brokers[0].broker_id, described


def produce(channel):
    """A hundred requests, sent without waiting for replies."""
    headers = [types_pb2.Header(key="n", value=b"1"), types_pb2.Header(key="n")]
    requests = (
        data_pb2.ProduceRequest(
            id=n,
            topic=TOPIC,
            records=types_pb2.Records(
                records=[types_pb2.Record(key=b"key", value=b"value %d" % n, headers=headers, timestamp_ms=n)]
            ),
        )
        for n in range(100)
    )
    replies = list(data_pb2_grpc.DataStub(channel).Produce(requests, timeout=DEADLINE_S))
    assert [reply.id for reply in replies] == list(range(100)), replies
    produced = [reply.partitions[0].produced for reply in replies]
    assert [one.base_offset for one in produced] == list(range(100)), produced
    assert all(one.durability == types_pb2.DURABILITY_SYNCED_IN_SYNC_SET for one in produced), produced


def subscribe(channel):
    position = types_pb2.Position(special=types_pb2.Position.SPECIAL_START)
    start = data_pb2.SubscribeStart(
        parts=[data_pb2.SubscribePart(topic=TOPIC, **{"from": position})],
        credit_bytes=1 << 20,
        filter='header("n") == null && offset % 2 == 0',
    )
    call = data_pb2_grpc.DataStub(channel).Subscribe(
        iter([data_pb2.SubscribeRequest(start=start)]), timeout=DEADLINE_S
    )
    records = []
    for reply in call:
        records.extend(reply.delivery.records.records)
        if reply.delivery.next_offset == 100:
            break
    call.cancel()
    assert [record.offset for record in records] == list(range(0, 100, 2)), records
    record = records[1]
    assert (record.key, record.value, record.timestamp_ms) == (b"key", b"value 2", 2), record
    assert [(header.key, header.HasField("value")) for header in record.headers] == [("n", True), ("n", False)], record


def read_stream(channel):
    """Appends to a stream under a condition, and reads it back."""
    events = events_pb2_grpc.EventsStub(channel)

    def append(expected, *values):
        request = events_pb2.AppendIfRequest(
            topic=TOPIC, key=b"stream", expected=expected, records=[types_pb2.Record(value=value) for value in values]
        )
        return events.AppendIf(request, timeout=DEADLINE_S)

    first = append(events_pb2.Expected(special=events_pb2.Expected.SPECIAL_NO_STREAM), b"a", b"b")
    append(events_pb2.Expected(offset=first.last_offset), b"c")
    try:
        append(events_pb2.Expected(offset=first.last_offset), b"lost")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
        info = error_info(error)
        assert (info.reason, info.metadata["last_offset"]) == ("STREAM_CONFLICT", str(first.last_offset + 1)), info
    else:
        raise AssertionError("two appends were accepted on one expectation")
    request = events_pb2.ReadStreamRequest(topic=TOPIC, key=b"stream")
    values = [record.value for part in events.ReadStream(request, timeout=DEADLINE_S) for record in part.records]
    assert values == [b"a", b"b", b"c"], values


def error_info(error):
    """The reason in the details of a status, for programs."""
    details = dict(error.trailing_metadata())["grpc-status-details-bin"]
    info = error_details_pb2.ErrorInfo()
    assert status_pb2.Status.FromString(details).details[0].Unpack(info), details
    return info


def be_refused(channel):
    request = data_pb2.ProduceRequest(topic="missing", records=types_pb2.Records(records=[types_pb2.Record()]))
    try:
        data_pb2_grpc.DataStub(channel).Append(request, timeout=DEADLINE_S)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND, error
        info = error_info(error)
        assert (info.domain, info.reason) == ("floodmark", "UNKNOWN_TOPIC_OR_PARTITION"), info
        assert info.metadata["retryable"] == "true", info
        return
    raise AssertionError("a topic that there is not was appended to")


def main():
    with grpc.insecure_channel(sys.argv[1]) as channel:
        for step in (make_topic, produce, subscribe, read_stream, be_refused):
            step(channel)
            print(step.__name__)


main()
