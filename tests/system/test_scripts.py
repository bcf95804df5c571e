"""The shell scripts."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_shellcheck_finds_nothing_wrong_with_the_scripts() -> None:
    scripts = [path for folder in (".ci", "deploy", "tests") for path in (ROOT / folder).rglob("*.sh")]
    assert len(scripts) > 5
    found = subprocess.run(
        ["shellcheck", "--external-sources", "--source-path=SCRIPTDIR", *scripts],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (found.returncode, found.stdout + found.stderr) == (0, "")
