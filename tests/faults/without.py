"""Takes protections out, each in a copy of the project, and sees the tests that guard them fail.

`python -m tests.faults.without` prints the table that PROTECTIONS.md has. With words after it, only protections
whose names have one of them.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.faults.protections import PROTECTIONS
from tests.faults.protections.protection import Protection

ROOT = Path(__file__).parents[2]
PATIENCE = "15"
"""Seconds that a test without its protection waits for what will not come."""
SECONDS = 300
"""That one test may take."""


def without(protection: Protection) -> str:
    """How the test fails when the protection is taken out; empty if it passes all the same."""
    with TemporaryDirectory(prefix="deviceops-") as name:
        copy = Path(name) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        for file, old, new in protection.edits:
            source = (copy / file).read_text()
            assert source.count(old) == 1, f"{protection.name}: {file} does not have, once: {old}"
            (copy / file).write_text(source.replace(old, new))
        try:
            test, tries = f"tests/faults/{protection.test}", str(protection.tries)
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "--tries", tries, test],
                cwd=copy,
                env={**os.environ, "PYTHONPATH": str(copy), "FAULT_PATIENCE": PATIENCE, "COLUMNS": "400"},
                capture_output=True,
                text=True,
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired:
            return f"does not end within {SECONDS} s"
    failures = re.findall(r"^(?:FAILED|ERROR) tests/.*? - (.*)$", done.stdout, re.MULTILINE)
    assert done.returncode in (0, 1), done.stdout[-3_000:] + done.stderr
    return "" if done.returncode == 0 else shortened(failures[0] if failures else done.stdout[-200:])


def shortened(text: str) -> str:
    """A failure as it can stand in a table."""
    first = re.sub(r"\s+", " ", text.replace("|", "/")).strip()
    return first if len(first) <= 160 else f"{first[:160]}…"


def main() -> int:
    """Print the table; 1 if a test did not notice."""
    chosen = [each for each in PROTECTIONS if not sys.argv[1:] or any(word in each.name for word in sys.argv[1:])]
    print("| protection | test | how it fails without |\n|---|---|---|")  # noqa: T201
    unnoticed = 0
    for protection in chosen:
        failure = without(protection)
        unnoticed += not failure
        print(f"| {protection.name} | `{protection.test}` | {failure or 'NOT NOTICED'} |", flush=True)  # noqa: T201
    return int(unnoticed > 0)


if __name__ == "__main__":
    sys.exit(main())
