"""What the private servers need to know of the machine: its free ports and its processes (Linux)."""

import random
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

# Below the range of outgoing connections, lest one of these holds a port when its server starts again.
_candidates = iter(random.sample(range(15_000, 30_000), 15_000))


def free_port() -> int:
    """A TCP port that nobody listens on, never the same twice."""
    for port in _candidates:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no TCP port is free")


def living() -> Mapping[int, int]:
    """The processes that live, each with its parent."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            state, parent, threads = fields[0], int(fields[1]), int(fields[17])
            # A dead process stays listed until its parent notices. Its ports are free with its last thread.
            if state not in "ZX" or threads > 1:
                parents[int(stat.parent.name)] = parent
    return parents


def family(pid: int) -> set[int]:
    """A process and all its descendants."""
    parents = living()
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found
