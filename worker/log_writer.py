"""Standard error, written by a thread, so that logging never blocks.

With a pipe that is not read, a stopped terminal or a full disk, lines are dropped and counted.
"""

import atexit
import io
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue

LIMIT = 1 << 20
"""Maximum bytes in the queue; further lines are dropped."""
WRITE_INTERVAL = 0.05
"""Seconds between two writes, so that a busy log is written in few, large writes."""
FLUSH_TIMEOUT = 3
"""Maximum seconds of a flush, as at the end of the process."""


class LogWriter:
    """Writes lines to a descriptor. `note` formats the number of dropped lines; None for no such line."""

    def __init__(self, descriptor: int) -> None:
        self.note: Callable[[int], str] | None = None
        self._descriptor = descriptor
        self._lines: SimpleQueue[bytes] = SimpleQueue()
        # The first two are changed by callers, under the lock; the others by the thread.
        self._taken = self._refused = 0
        self._done = self._lost = self._noted = 0
        self._is_mid_line = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stuck_at: int | None = None

    @property
    def dropped(self) -> int:
        """Number of lines that were not written."""
        return self._refused + self._lost

    def write(self, line: str) -> None:
        """Queue a line, given without its end; never blocks."""
        self.put(f"{line}\n")

    def put(self, text: str) -> None:
        """Queue text as it is, such as a progress bar; never blocks."""
        data = _encoded(text)
        with self._lock:
            if self._taken - self._done + len(data) > LIMIT:
                self._refused += 1
                return
            self._taken += len(data)
            self._lines.put(data)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()

    def flush(self) -> None:
        """Wait until the queue is written, up to FLUSH_TIMEOUT seconds; only once while nothing can be written."""
        deadline = time.monotonic() + FLUSH_TIMEOUT
        while self._done < self._taken and self._done != self._stuck_at:
            if time.monotonic() >= deadline:
                self._stuck_at = self._done
            time.sleep(WRITE_INTERVAL / 20)

    def _run(self) -> None:
        while True:
            lines = [self._lines.get()]
            with suppress(Empty):
                while True:
                    lines.append(self._lines.get_nowait())
            lost = self._write(lines)
            self._lost += lost
            unnoted = self.dropped - self._noted
            if unnoted and not lost and self._lines.empty() and self._write_note(unnoted):
                self._noted += unnoted
            self._done += sum(map(len, lines))
            time.sleep(WRITE_INTERVAL)

    def _write_note(self, dropped: int) -> bool:
        """Write the number of dropped lines; whether that succeeded."""
        return self.note is not None and not self._write([_encoded(f"{self.note(dropped)}\n")])

    def _write(self, lines: Sequence[bytes]) -> int:
        """Write lines; the number of those that could not be written."""
        data = b"".join(lines)
        if self._is_mid_line:
            data = b"\n" + data
        written = 0
        with suppress(OSError):
            while written < len(data):
                written += self._some(data[written:])
        if written:
            self._is_mid_line = written < len(data) and data[written - 1 : written] != b"\n"
        return data.count(b"\n") - data.count(b"\n", 0, written)

    def _some(self, data: bytes) -> int:
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:  # another process with this pipe or terminal may have set O_NONBLOCK
            poll = select.poll()
            poll.register(self._descriptor, select.POLLOUT)
            poll.poll()
            return 0


def _encoded(text: str) -> bytes:
    return text.encode(_encoding(), "backslashreplace")


def _encoding() -> str:
    """The encoding of Python's own standard error: a progress bar replaces sys.stderr by a stream without one."""
    return "utf-8" if sys.__stderr__ is None else sys.__stderr__.encoding


writer = LogWriter(2)
"""The writer of standard error."""
atexit.register(writer.flush)


class StandardError(io.TextIOBase):
    """Standard error as a text file on top of the writer, for printing."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of standard error."""
        return _encoding()

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return sys.stderr.isatty()

    def fileno(self) -> int:
        """The descriptor."""
        return 2

    def write(self, text: str) -> int:
        """Never blocks, and never raises."""
        writer.put(text)
        return len(text)
