"""Files and standard streams whose errors name them, and cannot be taken for errors of a database or a broker."""

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedWriter, FileIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from worker.errors import DeviceopsError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class FileError(DeviceopsError):
    """A file or stream cannot be opened, read or written; the message names it and the reason."""


class OutputClosed(FileError):
    """The reader of the output has closed the pipe, as `head` does."""


class File(FileIO):
    """An unbuffered file that raises FileError instead of OSError."""

    def __init__(self, file: str | int, mode: str, label: str) -> None:
        self.label = label
        with _named(label):
            super().__init__(file, mode, closefd=isinstance(file, str))

    def read(self, size: int | None = -1) -> bytes:
        """As FileIO.read()."""
        with _named(self.label):
            return super().read(-1 if size is None else size)

    def readall(self) -> bytes:
        """As FileIO.readall()."""
        with _named(self.label):
            return super().readall()

    def write(self, data: "ReadableBuffer") -> int:
        """As FileIO.write()."""
        with _named(self.label):
            return super().write(data)

    def close(self) -> None:
        """As FileIO.close()."""
        with _named(self.label):
            super().close()


@contextmanager
def readable(source: str) -> Iterator[File]:
    """The file, or standard input for `-`. Raises FileError."""
    if source == "-" and sys.stdin is None:
        raise FileError("standard input is closed")
    with File(sys.stdin.fileno(), "r", "standard input") if source == "-" else File(source, "r", source) as file:
        yield file


@contextmanager
def writable(output: str) -> Iterator[BinaryIO]:
    """The file, truncated, or standard output for `-`. Raises FileError."""
    if output == "-":
        yield sys.stdout.buffer
        return
    with BufferedWriter(File(output, "w", output)) as stream:
        yield stream


@contextmanager
def replaced(output: str) -> Iterator[BinaryIO]:
    """A file that takes the place of `output` when the block ends; if it fails, `output` stays as it was.

    What is no regular file, such as a pipe or standard output for `-`, is written directly. Raises FileError.
    """
    path = Path(os.path.realpath(output))
    if output == "-" or (path.exists() and not path.is_file()):
        with writable(output) as stream:
            yield stream
        return
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        with BufferedWriter(File(str(temporary), "w", output)) as stream:
            yield stream
            stream.flush()
            with _named(output):
                os.fsync(stream.fileno())
        with _named(output):
            if path.exists():
                temporary.chmod(path.stat().st_mode)
            temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


@contextmanager
def _named(label: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind = OutputClosed if isinstance(error, BrokenPipeError) else FileError
        raise kind(f"{label or repr(label)}: {error.strerror}") from error
