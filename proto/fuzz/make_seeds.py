"""Makes the seeds anew from the golden batches: python make_seeds.py. Seeds that a fuzzer found stay beside them."""
import pathlib
import random
import struct

HEADER_LEN = 61
CODECS = [None, "gzip", "snappy", "lz4", "zstd"]
HERE = pathlib.Path(__file__).parent
GOLDEN = HERE.parent / "tests" / "golden"


def batches(log):
    at = 0
    while at < len(log):
        size = struct.unpack_from(">i", log, at + 8)[0] + 12
        yield log[at : at + size]
        at += size


def put(target, name, data):
    folder = HERE / "seeds" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def main():
    for path in sorted(GOLDEN.glob("*/*.batch")):
        for index, batch in enumerate(batches(path.read_bytes())):
            # Client without its version; large batches once only.
            client = path.parent.name.rsplit("-", 1)[0]
            name = f"{client}-{path.stem}-{index}"
            codec = CODECS[batch[22] & 7]
            if len(batch) < 1000:
                put("batch_header_and_check", name, batch)
                put("records", name, batch)
            if codec and (len(batch) < 1000 or client == "kafka-java"):
                put(f"decompress_{codec}", name, batch[HEADER_LEN:])
    chance = random.Random(1)
    for codec in range(len(CODECS)):
        noise = bytes(chance.randrange(40) for _ in range(120))
        put("round_trip", f"codec-{codec}", bytes([codec, 0x10 * codec, 2, 1, 2]) + noise)


main()
