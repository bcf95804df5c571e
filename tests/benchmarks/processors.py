"""Processor time by program, of all its processes on this machine: a benchmark should have it for itself."""

import os
from collections.abc import Mapping
from pathlib import Path

PROGRAMS = {"beam.smp": "RabbitMQ", "postgres": "PostgreSQL"}
"""By the names of their processes."""
_FIELDS = slice(11, 15)
"""Of proc_pid_stat(5), after the name: its own time, for itself and in the kernel, and that of dead children."""


def taken() -> Mapping[str, float]:
    """Seconds that each program has taken so far."""
    seconds = dict.fromkeys(PROGRAMS.values(), 0.0)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, fields = stat.read_text().partition("(")[2].rpartition(")")
        except OSError:  # it has ended
            continue
        if name in PROGRAMS:
            ticks = sum(int(field) for field in fields.split()[_FIELDS])
            seconds[PROGRAMS[name]] += ticks / os.sysconf("SC_CLK_TCK")
    return seconds
