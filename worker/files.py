"""Files and standard streams whose failures name them: nothing takes those for a database's or a broker's."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedWriter, FileIO
from typing import TYPE_CHECKING, BinaryIO

from worker.errors import DeviceopsError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class FileFailed(DeviceopsError):
    """A file or a stream cannot be opened, read or written; the message says which, and why."""


class ReaderGone(FileFailed):
    """What read our output has stopped, as `head` does."""


class File(FileIO):
    """An unbuffered file. Raises FileFailed where others raise OSError."""

    def __init__(self, file: str | int, mode: str, label: str) -> None:
        self.label = label
        with _named(label):
            super().__init__(file, mode, closefd=isinstance(file, str))

    def read(self, size: int | None = -1) -> bytes:
        """As of any file."""
        with _named(self.label):
            return super().read(-1 if size is None else size)

    def readall(self) -> bytes:
        """As of any file."""
        with _named(self.label):
            return super().readall()

    def write(self, data: "ReadableBuffer") -> int:
        """As of any file."""
        with _named(self.label):
            return super().write(data)

    def close(self) -> None:
        """As of any file."""
        with _named(self.label):
            super().close()


@contextmanager
def readable(source: str) -> Iterator[File]:
    """The file, or standard input for `-`. Raises FileFailed."""
    if source == "-" and sys.stdin is None:
        raise FileFailed("standard input is closed")
    with File(sys.stdin.fileno(), "r", "standard input") if source == "-" else File(source, "r", source) as file:
        yield file


@contextmanager
def writable(output: str) -> Iterator[BinaryIO]:
    """The file, emptied first, or standard output for `-`. Raises FileFailed."""
    if output == "-":
        yield sys.stdout.buffer
        return
    with BufferedWriter(File(output, "w", output)) as stream:
        yield stream


@contextmanager
def _named(label: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind = ReaderGone if isinstance(error, BrokenPipeError) else FileFailed
        raise kind(f"{label}: {error.strerror}") from error
