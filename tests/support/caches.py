"""The folder in which the tests keep what is fetched or made once: a Debian, axe-core."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def caches() -> Path:
    """The folder, in the user's folder of caches."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "deviceops-tests")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lets one process at a time make a file or folder, by a lock beside it."""
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
