#!/usr/bin/env python3
"""Writes startup.txt: the functions that a broker calls from its start until it is at rest.

    python3 tools/layout/trace.py target/release/floodmark [ANOTHER_BUILD ...]

The linker puts them side by side (build.rs). Spread over the whole program, each of them would have the kernel map what lies around it,
64 KiB or as much as the page cache has in one piece, and all of that counts as the broker's memory. Linux on x86-64; the build must not
be stripped.

How: a breakpoint on the first byte of each function, taken away when it is hit. Each build is started on an empty directory and once
more on what that left behind; each time it is asked what a probe and a scraper ask.

A line is a name and, where its symbol ends in a hash, the hashes of those that are called. A hash stands for the arguments of a generic
function, and for the compiler, the profile and the versions of all crates below it: it lasts from build to build until one of those
changes. Then only the name is found, with everything that shares it, of which about half is called. So such names are listed too, those
of which most is called first, and left out where they would take more room than they save.

Take the list again with the toolchain, the release profile or Cargo.lock, of a build with that profile. `door footprint` says how much
of the list was found.
"""

import ctypes
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

HEAD = "# Made by trace.py, which says what for."
LIST = os.path.join(os.path.dirname(os.path.abspath(__file__)), "startup.txt")
SECONDS_EACH = 8
# What the kernel maps around a touch.
WINDOW_BYTES = 64 << 10
# More than any share.
NAME_ALONE_IS_TOO_MUCH = 2

TRACEME, CONT, GETREGS, SETREGS, SETOPTIONS = 0, 7, 12, 13, 0x4200
TRACE_CLONE, KILL_WITH_US = 0x8, 0x100000
WAIT_FOR_THREADS = 0x40000000
RIP = 16 * 8
BREAKPOINT = 0xCC

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def functions(program):
    """Address to size and names."""
    lines = subprocess.run(["nm", "-S", program], capture_output=True, text=True, check=True).stdout
    found = {}
    for line in lines.splitlines():
        parts = line.split()
        if len(parts) == 4 and parts[2] in "tTwW":
            size, names = found.setdefault(int(parts[0], 16), (int(parts[1], 16), []))
            names.append(parts[3])
    return found


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def look_in(ports, http):
    """What whoever watches over a broker does: connects to each door, and asks how it is."""
    until = time.monotonic() + SECONDS_EACH / 2
    while time.monotonic() < until:
        time.sleep(0.1)
        try:
            for port in ports:
                socket.create_connection(("127.0.0.1", port)).close()
            for path in ("/healthz", "/readyz", "/metrics"):
                with socket.create_connection(("127.0.0.1", http)) as asked:
                    asked.sendall(f"GET {path} HTTP/1.1\r\nHost: broker\r\nConnection: close\r\n\r\n".encode())
                    while asked.recv(65536):
                        pass
        except OSError:
            pass  # It does not listen yet.


def called(program, arguments, known, watcher):
    """Addresses of the functions that are called, in the order of their first call."""
    pid = os.fork()
    if pid == 0:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1)
        os.dup2(devnull, 2)
        libc.ptrace(TRACEME, 0, None, None)
        os.execv(program, [program, *arguments])
    os.waitpid(pid, 0)
    watcher.start()
    libc.ptrace(SETOPTIONS, pid, None, ctypes.c_void_p(TRACE_CLONE | KILL_WITH_US))
    with open(f"/proc/{pid}/maps") as maps:
        base = next(int(m.split("-")[0], 16) for m in maps if m.rstrip().endswith(os.path.realpath(program)))
    memory = os.open(f"/proc/{pid}/mem", os.O_RDWR)
    first, last = min(known), max(known)
    text = os.pread(memory, last - first + 1, base + first)
    for address in known:
        os.pwrite(memory, bytes([BREAKPOINT]), base + address)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(pid, signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, SECONDS_EACH)

    order, registers = {}, ctypes.create_string_buffer(512)
    tid, passed_on = pid, 0
    while True:
        libc.ptrace(CONT, tid, None, ctypes.c_void_p(passed_on))
        tid, status = os.waitpid(-1, WAIT_FOR_THREADS)
        passed_on = 0
        while os.WIFEXITED(status) or os.WIFSIGNALED(status):
            if tid == pid:
                os.close(memory)
                return list(order)
            tid, status = os.waitpid(-1, WAIT_FOR_THREADS)
        stopped_by = os.WSTOPSIG(status)
        if stopped_by == signal.SIGTRAP and status >> 16 == 0:
            libc.ptrace(GETREGS, tid, None, registers)
            at = struct.unpack_from("<Q", registers, RIP)[0] - 1
            address = at - base
            if address in known:
                if address not in order:
                    order[address] = None
                    os.pwrite(memory, text[address - first : address - first + 1], at)
                struct.pack_into("<Q", registers, RIP, at)
                libc.ptrace(SETREGS, tid, None, registers)
        elif stopped_by not in (signal.SIGTRAP, signal.SIGSTOP):
            passed_on = stopped_by


def split(name):
    """A name as it is in other builds, `?` and `*` as in a linker script, and its hash or nothing."""
    name = re.sub(r"\.llvm\.\d+$", "", name)
    if hashed := re.fullmatch(r"(_ZN.*17h)([0-9a-f]{16})E", name):
        return hashed.groups()
    return re.sub(r"Cs[0-9A-Za-z]+_", "Cs*_", name) if name.startswith("_R") else name, ""


class Found:
    """What one name stands for."""

    def __init__(self):
        self.all_bytes = self.called_bytes = self.called_count = 0
        self.hashes = set()

    def uncalled(self):
        return 1 - self.called_bytes / max(self.all_bytes, 1)

    def saves_room(self):
        return self.all_bytes <= WINDOW_BYTES * self.called_count


def trace(program):
    """Names that are called, and the bytes of all that is called."""
    known = functions(program)
    order = {}
    with tempfile.TemporaryDirectory() as scratch:
        for _ in range(2):
            ports = {door: free_port() for door in ("kafka", "grpc", "http")}
            listen = [f"--{door}-listen=127.0.0.1:{port}" for door, port in ports.items()]
            watcher = threading.Thread(target=look_in, args=(ports.values(), ports["http"]))
            for address in called(program, ["serve", f"--data-dir={scratch}/data", *listen], known, watcher):
                order[address] = None
    found = {}
    for address, (size, names) in known.items():
        hashes_of = {}
        for name, own_hash in map(split, names):
            hashes_of.setdefault(name, set()).add(own_hash)
        for name, hashes in hashes_of.items():
            entry = found.setdefault(name, Found())
            entry.all_bytes += size
            if address in order:
                entry.called_bytes += size
                entry.called_count += 1
                entry.hashes |= hashes - {""}
    found = {name: entry for name, entry in found.items() if entry.called_count}
    own = sum(known[address][0] for address in order)
    kin = sum(entry.all_bytes for entry in found.values() if entry.saves_room())
    print(f"{program}: {len(order)} functions, {own >> 10} KiB; {kin >> 10} KiB share their names", file=sys.stderr)
    return found, own


def main():
    if not sys.argv[1:]:
        sys.exit(__doc__)
    uncalled, hashes, most = {}, {}, 0
    for program in sys.argv[1:]:
        found, called_bytes = trace(program)
        most = max(most, called_bytes)
        for name, entry in found.items():
            hashes.setdefault(name, set()).update(entry.hashes)
            share = entry.uncalled() if entry.saves_room() else NAME_ALONE_IS_TOO_MUCH
            uncalled[name] = max(share, uncalled.get(name, 0))
    with open(LIST, "w") as out:
        print(f"{HEAD}\n# bytes: {most}", file=out)
        for name in sorted(uncalled, key=uncalled.get):
            mark = "!" if uncalled[name] == NAME_ALONE_IS_TOO_MUCH else ""
            print(*[mark + name, *sorted(hashes[name])], file=out)


if __name__ == "__main__":
    main()
