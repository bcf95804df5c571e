"""The line on standard error that ends a process with a failure."""

from collections.abc import Callable

from worker.log_writer import writer


class _Log:
    """Writes the line where standard error has JSON only."""

    write: Callable[[str, int], None] | None = None


def report(message: str, code: int) -> None:
    """Write the message in one line; `code` is the exit code."""
    if _Log.write is None:
        writer.write(f"deviceops: {message}")
    else:
        _Log.write(message, code)


def report_to(log: Callable[[str, int], None] | None) -> None:
    """Set the function that writes the message and the exit code; None for plain text."""
    _Log.write = staticmethod(log) if log else None
