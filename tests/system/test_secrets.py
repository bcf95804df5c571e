"""Settings that are kept in files, as a command reads them."""

from pathlib import Path

import pytest

from tests.support.command import Deviceops
from worker.config import secret_files


@pytest.fixture(autouse=True)
def places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A working directory with directories for credentials and for a container's secrets."""
    monkeypatch.chdir(tmp_path)
    for directory in ("credentials", "container"):
        (tmp_path / directory).mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    monkeypatch.setattr(secret_files, "CONTAINER_SECRETS", tmp_path / "container")
    return tmp_path


def test_the_command_reads_credentials_and_check_says_so(deviceops_on_sqlite: Deviceops, places: Path) -> None:
    (places / "credentials" / "deviceops_batch_size").write_text("7\n")
    given = deviceops_on_sqlite.with_environment(CREDENTIALS_DIRECTORY=str(places / "credentials"), COLUMNS="300")

    shown = given.with_settings(batch_wait_file="nowhere")("check")
    assert (shown.returncode, len(shown.stderr.splitlines())) == (2, 1)
    shown = given("check")
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in shown.stdout.splitlines() if "_" in line}
    assert rows["DEVICEOPS_BATCH_SIZE"] == ["7", f"{places}/credentials/deviceops_batch_size"]
    assert rows["DEVICEOPS_DATABASE_URL"][1] == "the environment"
