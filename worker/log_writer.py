"""Standard error as a log: written by a thread, so that nothing waits for whatever reads it.

A pipe that is not read, a terminal that is stopped or a full disk costs lines, which are counted, and no time.
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
"""Bytes that wait to be written, at most; further lines are dropped."""
GATHERING = 0.05
"""Seconds between two writes: a log that is busy is written in fewer, larger pieces."""
CLOSING = 3
"""Seconds that a flush, as at the end of the process, waits for what is not written yet."""


class LogWriter:
    """Writes lines to a descriptor. `note` makes a line of how many were dropped; None tells nothing."""

    def __init__(self, descriptor: int) -> None:
        self.note: Callable[[int], str] | None = None
        self._descriptor = descriptor
        self._lines: SimpleQueue[bytes] = SimpleQueue()
        # Those who write change the first two, under the lock; the thread changes the others.
        self._taken = self._refused = 0
        self._done = self._lost = self._noted = 0
        self._is_mid_line = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stuck_at: int | None = None

    @property
    def dropped(self) -> int:
        """Lines that could not be written."""
        return self._refused + self._lost

    def write(self, line: str) -> None:
        """Have a line written, without the end of it; never waits."""
        self.put(f"{line}\n")

    def put(self, text: str) -> None:
        """Have a text written as it stands, such as a progress bar; never waits."""
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
        """Wait until everything is written, for some seconds; not again where nothing was written since."""
        deadline = time.monotonic() + CLOSING
        while self._done < self._taken and self._done != self._stuck_at:
            if time.monotonic() >= deadline:
                self._stuck_at = self._done
            time.sleep(GATHERING / 20)

    def _run(self) -> None:
        while True:
            lines = [self._lines.get()]
            with suppress(Empty):
                while True:
                    lines.append(self._lines.get_nowait())
            lost = self._write(lines)
            self._lost += lost
            unnoted = self.dropped - self._noted
            if unnoted and not lost and self._lines.empty() and self._tell(unnoted):
                self._noted += unnoted
            self._done += sum(map(len, lines))
            time.sleep(GATHERING)

    def _tell(self, dropped: int) -> bool:
        """Whether how many lines were dropped could be written."""
        return self.note is not None and not self._write([_encoded(f"{self.note(dropped)}\n")])

    def _write(self, lines: Sequence[bytes]) -> int:
        """How many of some lines are lost, as they cannot be written."""
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
        except BlockingIOError:  # whoever else has this pipe or terminal may have changed it
            poll = select.poll()
            poll.register(self._descriptor, select.POLLOUT)
            poll.poll()
            return 0


def _encoded(text: str) -> bytes:
    return text.encode(_encoding(), "backslashreplace")


def _encoding() -> str:
    """That of the stream that Python opened: a progress bar puts something in its place that has none."""
    return "utf-8" if sys.__stderr__ is None else sys.__stderr__.encoding


writer = LogWriter(2)
"""Of this process: standard error."""
atexit.register(writer.flush)


class StandardError(io.TextIOBase):
    """Standard error as a text file, by the writer: for what prints rather than logs."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """As of standard error."""
        return _encoding()

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return sys.stderr.isatty()

    def fileno(self) -> int:
        """The descriptor."""
        return 2

    def write(self, text: str) -> int:
        """Never waits, and never fails."""
        writer.put(text)
        return len(text)
