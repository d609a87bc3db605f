"""Takes the stored segments of the golden topics out of a broker's data directory, beside what a consumer read from them.

    python collect.py DATA_DIR dump.jsonl OUT_DIR

Writes OUT_DIR/<client>-<version>/<name>.batch (the whole log, one or more batches) and OUT_DIR/manifest.jsonl.
"""
import json
import pathlib
import re
import struct
import sys


def stored_batches(log_dir):
    """The bytes of all segments, without zeros written ahead."""
    log = b"".join(path.read_bytes() for path in sorted(log_dir.glob("*.log")))
    end = 0
    while end + 12 <= len(log) and (length := struct.unpack_from(">i", log, end + 8)[0]) > 0:
        end += 12 + length
    return log[:end]


def main():
    data_dir, dump, out_dir = map(pathlib.Path, sys.argv[1:])
    lines = []
    for line in dump.read_text().splitlines():
        told = json.loads(line)
        matched = re.fullmatch(r"([a-z-]+-[0-9.]+)\.([a-z0-9-]+)", told.pop("topic"))
        if not matched:
            continue
        client, name = matched.groups()
        file = out_dir / client / f"{name}.batch"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(stored_batches(data_dir / f"{client}.{name}-0"))
        lines.append(json.dumps({"file": f"{client}/{name}.batch", **told}, separators=(",", ":")))
    (out_dir / "manifest.jsonl").write_text("\n".join(sorted(lines)) + "\n")


main()
