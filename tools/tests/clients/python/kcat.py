"""kcat: each request is one run of the program, a consumer one that goes on in the background."""
import ctypes
import itertools
import json
import queue
import re
import signal
import subprocess
import sys
import threading
import time

from adapter import Refused, gather, record_out, serve

WAIT = 30
END_OF_KEY, END_OF_RECORD = b"\x01:=\x02", b"\x01--\x02\n"
# Partition, offset, time, lengths and headers on a line, then key and value as they are.
FORMAT = "%p %o %T %K %S %h\n%k%s\n"
# A consumer's offsets go every 5 s. The setting that would change it has a namesake among those of a topic, and kcat's -X sets that one.
COMMITTED_AFTER_S = 6


def die_with_parent():
    """Where this program is killed, kcat is, too, and does not stay in its group."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Stream:
    """A kcat that consumes: its records and what it says of its group."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        preexec_fn=die_with_parent)
        self.records, self.said = queue.Queue(), []
        self.last_record_at = time.monotonic()
        self.assigned, self.revoked = set(), []
        for reader in self.read_records, self.read_messages:
            threading.Thread(target=reader, daemon=True).start()

    def read_records(self):
        out = self.process.stdout
        while head := out.readline():
            partition, offset, timestamp, key_length, value_length, headers = head.decode()[:-1].split(" ", 5)
            key, value = (None if int(n) < 0 else out.read(int(n)) for n in (key_length, value_length))
            out.read(1)
            self.last_record_at = time.monotonic()
            pairs = [h.split("=", 1) for h in headers.split(",")] if headers else []
            self.records.put(record_out(int(partition), int(offset), int(timestamp), key, value, pairs))

    def read_messages(self):
        for line in self.process.stderr:
            self.said.append(line.decode())
            change = re.search(r"rebalanced:? .*(assign|revo)", self.said[-1])
            if change:
                partitions = {int(p) for p in re.findall(r"\[(\d+)\]", self.said[-1])}
                if change[1] == "assign":
                    self.assigned |= partitions
                else:
                    self.assigned -= partitions
                    self.revoked += partitions

    def once(self, seconds):
        if self.process.poll() is not None and self.records.empty():
            raise Refused(f"kcat ended: {''.join(self.said[-3:])}", None)
        try:
            return [self.records.get(timeout=seconds) if seconds else self.records.get_nowait()]
        except queue.Empty:
            return []

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(WAIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


class Kcat:
    def __init__(self, bootstrap):
        self.base = ["kcat", "-b", bootstrap]
        self.stream = None

    def run(self, *arguments, stdin=b""):
        told = subprocess.run([*self.base, *arguments], input=stdin, capture_output=True, timeout=WAIT)
        if told.returncode != 0 or b"Delivery failed" in told.stderr:
            raise Refused(told.stderr.decode(), None)
        return told.stdout

    def hello(self):
        said = subprocess.run(["kcat", "-V"], capture_output=True, text=True).stdout
        version, library = re.search(r"Version (\S+) \(.*librdkafka (\S+)", said).groups()
        return {"version": f"{version} (librdkafka {library})",
                "codecs": ["none", "gzip", "snappy", "lz4", "zstd"],
                "lacks": ["null header", "binary header", "null record", "timestamp", "offsets", "commit"]}

    def produce(self, topic, codec, acks, idempotent, records):
        # What kcat takes for a whole run (partition, headers, null or not) is what one run is made of.
        in_order = sorted(records, key=lambda r: -1 if r["partition"] is None else r["partition"])
        for (partition, headers, is_null), run in itertools.groupby(
                in_order, lambda r: (r["partition"], r["headers"], r["value"] is None)):
            lines = [(b"" if r["key"] is None else bytes.fromhex(r["key"]) + END_OF_KEY) + bytes.fromhex(r["value"] or "")
                     for r in run]
            options = ["-p", str(partition)] if partition is not None else []
            options += ["-Z"] if is_null else []
            for name, value in headers:
                options += ["-H", f"{name}={bytes.fromhex(value).decode()}"]
            self.run("-P", "-t", topic, "-z", codec, "-X", f"acks={acks}", "-X", f"enable.idempotence={idempotent}".lower(),
                     "-X", "message.max.bytes=20000000", "-K", END_OF_KEY.decode(), "-D", END_OF_RECORD.decode(), *options,
                     stdin=END_OF_RECORD.join(lines))
        return {"offsets": [[-1, -1]] * len(records)}

    def transaction(self, topic, transactional_id):
        self.run("-P", "-t", topic, "-X", f"transactional.id={transactional_id}", stdin=b"in a transaction")

    def assign(self, topic, partitions, start):
        self.close()
        at = {"start": "beginning", "end": "end"}.get(start, f"s@{start}")
        self.stream = Stream([*self.base, "-C", "-u", "-q", "-t", topic, "-o", at, "-f", FORMAT])

    def subscribe(self, topic, group, strategy, instance, session_ms):
        self.close()
        options = {"partition.assignment.strategy": {"eager": "range", "cooperative": "cooperative-sticky"}[strategy],
                   "session.timeout.ms": session_ms, "heartbeat.interval.ms": session_ms // 6,
                   "auto.offset.reset": "earliest"}
        if instance is not None:
            options["group.instance.id"] = instance
        flags = [flag for name, value in options.items() for flag in ("-X", f"{name}={value}")]
        self.stream = Stream([*self.base, "-u", "-f", FORMAT, *flags, "-G", group, topic])

    def poll(self, ms):
        records = gather(ms, self.stream.once)
        revoked, self.stream.revoked = self.stream.revoked, []
        return {"records": records, "assignment": sorted(self.stream.assigned), "revoked": revoked}

    def commit(self):
        # It commits by itself, after a while.
        time.sleep(max(0, self.stream.last_record_at + COMMITTED_AFTER_S - time.monotonic()))

    def close(self):
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.end()

    def metadata(self, prefix):
        topics = json.loads(self.run("-L", "-J"))["topics"]
        return {"topics": [[t["topic"], len(t["partitions"])] for t in topics if t["topic"].startswith(prefix)]}

    def describe_cluster(self):
        told = json.loads(self.run("-L", "-J"))
        places = [[b["id"], *b["name"].rsplit(":", 1)] for b in told["brokers"]]
        return {"cluster_id": None, "controller": told["controllerid"], "brokers": [[i, h, int(p)] for i, h, p in places]}

    def describe_topic(self, topic):
        partitions = json.loads(self.run("-L", "-J", "-t", topic))["topics"][0]["partitions"]
        return {"partitions": [[p["partition"], p["leader"], len(p["replicas"]), len(p["isrs"])] for p in partitions]}

    def list_offsets(self, topic, partitions, at):
        wanted = [flag for p in partitions for flag in ("-t", f"{topic}:{p}:{ {'start': -2, 'end': -1}.get(at, at)}")]
        told = self.run("-Q", *wanted).decode()
        return {"offsets": [[int(p), int(o)] for p, o in re.findall(r"\[(\d+)\] offset (-?\d+)", told)]}


serve(Kcat(sys.argv[1]))
