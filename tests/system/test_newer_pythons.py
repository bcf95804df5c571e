"""The tests of the program and of its databases pass with newer Pythons than this machine's."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.services.debian import PYTHONS, debian, seeing

ROOT = Path(__file__).parents[2]


@pytest.mark.long
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("version", PYTHONS)
def test_what_needs_no_broker_passes(version: str, full: bool, tmp_path: Path, postgresql_url: str) -> None:
    if not full:
        pytest.skip("takes minutes: with --full")
    folder, environment = debian(*PYTHONS[version]), tmp_path / "environment"
    python = environment / "bin/python"
    passed_on = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "TEST_"))}

    def run(*command: str | Path) -> None:
        subprocess.run(
            seeing(folder, "usr", command=command),
            cwd=ROOT,
            env={**passed_on, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TEST_POSTGRESQL_URL": postgresql_url},
            check=True,
        )

    run(f"/usr/bin/python{version}", "-m", "venv", environment)
    run(python, "-m", "pip", "install", "--quiet", "--constraint", "constraints.txt", "--editable", ".[dev]")
    options = ("--numprocesses=2", "-p", "no:cacheprovider", "--hypothesis-profile=few")  # no laws are sought here
    run(python, "-m", "pytest", "tests/unit", "tests/database", *options)
