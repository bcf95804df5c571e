"""A command on a terminal of some width."""

import fcntl
import os
import pty
import re
import struct
import termios

from tests.support.command import Deviceops


def on_a_terminal(deviceops: Deviceops, columns: int, *arguments: str) -> list[str]:
    """The lines that a command draws on a terminal of some width, without their colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    sized = deviceops.with_environment(COLUMNS=str(columns), TERM="xterm-256color")
    with sized.start(*arguments, stdout=theirs, stderr=theirs, stdin=theirs) as process:
        os.close(theirs)
        drawn = b""
        try:
            while chunk := os.read(ours, 65_536):
                drawn += chunk
        except OSError:  # how Linux says that the other side is closed
            pass
    os.close(ours)
    assert process.returncode == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", drawn.decode())
    return re.split(r"\r\n?", plain)  # a bar goes back to be drawn anew


def answered(deviceops: Deviceops, answer: str, *arguments: str) -> tuple[int, str]:
    """The exit code of a command on a terminal, to which this is answered, and what it says."""
    ours, theirs = os.openpty()
    with deviceops.start(*arguments, stdin=theirs) as process:
        os.write(ours, f"{answer}\n".encode())
        out, err = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    return process.returncode, out + err
