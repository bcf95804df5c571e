"""A supervisor: runs a worker, and the next one whenever one has ended, until it is told to stop.

Each life is forked from a process that has imported everything already, so a test can afford many of them. It
writes a line to standard output for each birth and each death: `born PID`, `died PID CODE`, where CODE is negative
for a signal. SIGTERM is passed on to the worker; the supervisor then leaves with the worker's code.
"""

import os
import signal
import sys
import time

from tests.faults import sabotage
from worker.cli import (
    main,
    run,  # noqa: F401  # what a life would have to import
)

is_stopping = False


def tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def live() -> None:
    """One life of a worker; does not return."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sabotage.prepare()
    sys.argv = ["deviceops", "run"]
    try:
        main()
    except SystemExit as end:
        sys.stderr.flush()
        os._exit(int(end.code or 0))


def supervise() -> int:
    """Run life after life. Returns the exit code of the last one."""
    global is_stopping
    while True:
        pid = os.fork()
        if pid == 0:
            live()

        def stop(*_: object, pid: int = pid) -> None:
            global is_stopping
            is_stopping = True
            os.kill(pid, signal.SIGTERM)

        signal.signal(signal.SIGTERM, stop)
        tell(f"born {pid}")
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        tell(f"died {pid} {code}")
        if is_stopping:
            return code
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(supervise())
