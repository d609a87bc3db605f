"""What the Python adapters share: the loop that reads one request a line and answers each with one line (see ../README.md)."""
import json
import sys
import time
import traceback


class Unsupported(Exception):
    """The client has no such function."""


class Refused(Exception):
    """The broker answered with an error code."""

    def __init__(self, text, code):
        super().__init__(text)
        self.code = code


def unhex(text):
    return None if text is None else bytes.fromhex(text)


def as_hex(data):
    if data is None:
        return None
    return (data.encode() if isinstance(data, str) else bytes(data)).hex()


def headers_in(record):
    return [(name, unhex(value)) for name, value in record["headers"]]


def record_out(partition, offset, timestamp, key, value, headers):
    return [partition, offset, timestamp, as_hex(key), as_hex(value), [[n, as_hex(v)] for n, v in headers or []]]


def gather(wait_ms, poll):
    """Calls `poll(seconds)` until it gives something, then takes what else is there at once."""
    until = time.monotonic() + wait_ms / 1000
    found = []
    while True:
        left = until - time.monotonic()
        more = poll(0 if found else max(0.0, min(left, 0.2)))
        found += more
        if (found and not more) or left <= 0 or len(found) > 5000:
            return found


def answer(client, request):
    operation = request.pop("op")
    try:
        function = getattr(client, operation, None)
        if function is None:
            raise Unsupported(f"no {operation.replace('_', ' ')}")
        return {"ok": function(**request) or {}}
    except Unsupported as error:
        return {"unsupported": str(error)}
    except Refused as error:
        return {"error": str(error), "code": error.code}
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}", "code": code_of(error)}


def code_of(error):
    """Kafka's number, where the client's exception carries it."""
    code = getattr(error, "errno", None)
    if code is None and error.args and hasattr(error.args[0], "code"):
        code = error.args[0].code()
    return code if isinstance(code, int) else None


def serve(client):
    # Whatever a library prints must not end up between the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        answers.write(json.dumps(answer(client, json.loads(line))) + "\n")
        answers.flush()
