"""`python -m worker` is the `deviceops` command."""

import gc
import os
import sys

GARBAGE = 50_000
"""New objects after which the garbage collector runs: a batch creates tens of thousands, and a run after every
700, Python's default, took a seventh of the time of bulk messages."""


def main() -> None:
    """Import the command line, and run it."""
    open_closed_descriptors()
    gc.disable()
    gc.set_threshold(GARBAGE)
    from worker.cli import main as run

    # The collector stays off until the command that is called was imported, see `worker.cli.lazy`, which then
    # freezes existing objects: searching them for garbage, above all at exit, took a quarter of a short command.
    run()


def open_closed_descriptors() -> None:
    """Open the descriptors 0, 1 and 2 on the null device, where the parent process closed them.

    Otherwise what is opened first, such as a database's file or the event loop's own, would get their numbers.
    What is asked to read standard input still says that it is closed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
            os.set_inheritable(number, True)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  # for as long as the process lives
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


if __name__ == "__main__":
    main()
