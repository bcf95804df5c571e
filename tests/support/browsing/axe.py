"""axe-core, which finds what keeps people from using a page. `python -m tests.support.browsing.axe` fetches it.

It comes from npm, of one version, whose content is known by its hash, and is kept in the folder of caches.
"""

import hashlib
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.support.caches import caches, locked
from tests.support.services.server import ServiceError

VERSION = "4.14.1"
SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
"""Of axe.min.js."""
FETCH_SECONDS = 120
RUN = """
const [options, done] = arguments;
axe.run(document, options).then(found => done({violations: found.violations}), error => done({error: `${error}`}));
"""
OPTIONS = {"resultTypes": ["violations"]}
"""All rules of axe's that are on by default: WCAG 2.0 to 2.2, A and AA, and best practices."""


@cache
def script() -> str:
    """axe-core's source, fetched if it is not there yet. Raises ServiceError if it cannot be had."""
    path = caches() / f"axe-core-{VERSION}.min.js"
    with locked(path):
        if not path.exists():
            _fetch(path)
    source = path.read_bytes()
    if hashlib.sha256(source).hexdigest() != SHA256:
        raise ServiceError(f"{path} is not axe-core {VERSION}: remove it, and run tests/run.sh.")
    return source.decode()


def _fetch(path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise ServiceError("The tests need axe-core, by npm: run tests/run.sh, or apt-get install npm.")
    with TemporaryDirectory() as folder:
        command = [npm, "pack", "--silent", f"--pack-destination={folder}", f"axe-core@{VERSION}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False)
        if done.returncode:
            raise ServiceError(f"axe-core {VERSION} could not be fetched: {done.stdout}{done.stderr}")
        with tarfile.open(Path(folder, done.stdout.strip())) as archive:
            packed = archive.extractfile("package/axe.min.js")
            assert packed is not None
            unfinished = path.with_suffix(".new")
            unfinished.write_bytes(packed.read())
    unfinished.rename(path)


def violations(found: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Lines about what axe found: the rule, how bad it is, and each element with what is to be mended."""
    for rule in found:
        yield f"{rule['id']} ({rule['impact']}): {rule['help']}"
        for node in rule["nodes"]:
            yield f"    {' '.join(map(str, node['target']))}: {_summary(node)}"


def _summary(node: Mapping[str, Any]) -> str:
    return " ".join(str(node["failureSummary"]).split())


if __name__ == "__main__":
    sys.stdout.write(f"axe-core {VERSION}: {len(script()):,} bytes\n")
