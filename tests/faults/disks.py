"""A disk of a test's own, and how to fill it."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


class SmallDisk:
    """A file system in memory, of so many bytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self, left: int = 0) -> None:
        """Take every free byte but for the given number."""
        with self._ballast.open("ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
            file.truncate(file.tell() - left)

    def make_room(self) -> None:
        """Give them back."""
        self._ballast.unlink()


@contextmanager
def small_disk(megabytes: int) -> Iterator[SmallDisk]:
    """A small disk that anybody may write to, mounted for the length of a block: by root, or by sudo."""
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    options = f"size={megabytes}m,mode=1777"
    with TemporaryDirectory(prefix="deviceops-") as folder:  # not pytest's, where other accounts may not enter
        subprocess.run([*as_root, "mount", "-t", "tmpfs", "-o", options, "deviceops", folder], check=True)
        try:
            yield SmallDisk(Path(folder))
        finally:
            subprocess.run([*as_root, "umount", "--lazy", folder], check=True)
