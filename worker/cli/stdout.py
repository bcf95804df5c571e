"""Standard output to a slow pipe, a terminal without some characters, a full disk."""

import codecs
import io
import json
import os
import sys

from worker.files import File, FileError

_ESCAPED = "deviceops.escaped"


def prepare() -> None:
    """Give standard output a buffer, whatever the environment says, and failures that name it.

    Without a buffer (PYTHONUNBUFFERED), Python writes once and forgets what the kernel did not take: a pipe that
    is read slowly would get the beginning of a long document. What the encoding lacks is escaped as in JSON.
    """
    codecs.register_error(_ESCAPED, _escaped)
    try:
        raw = File(sys.stdout.fileno(), "w", "standard output")
    except (AttributeError, OSError, ValueError):  # closed, or not a file
        return
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(raw), sys.stdout.encoding, _ESCAPED, line_buffering=sys.stdout.isatty()
    )


def finish() -> None:
    """Write what is left in the buffer, or drop it: Python would try again at exit, and report the failure."""
    try:
        sys.stdout.flush()
    except FileError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end
