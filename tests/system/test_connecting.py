"""Commands whose hosts do not resolve name them, and wait for none that cannot exist."""

from pathlib import Path

import pytest

from tests.support.command import Deviceops
from worker.config.settings import Settings
from worker.errors import SettingsError

NOWHERE = {"database_url": "postgresql://u@database.invalid/d", "amqp_url": "amqp://broker.invalid/"}


def test_check_names_every_host_that_does_not_resolve(tmp_path: Path) -> None:
    done = Deviceops(tmp_path, NOWHERE)("check")

    assert done.returncode == 1
    assert "database.invalid, port 5432: Name or service not known; broker amqp://broker.invalid/:" in done.stderr
    assert "Errno" not in done.stderr


@pytest.mark.parametrize("missing", NOWHERE)
def test_a_worker_does_not_wait_for_a_host_that_cannot_exist(deviceops_on_broker: Deviceops, missing: str) -> None:
    done = deviceops_on_broker.with_settings(**{missing: NOWHERE[missing]}, log_level="ERROR")("run")

    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert "Name or service not known" in done.stderr


@pytest.mark.parametrize("kind", ["database_url", "amqp_url"])
@pytest.mark.parametrize("host", ["a..b", "x" * 64, "h:99999", "h:0"])
def test_an_address_that_no_resolver_takes_is_an_error_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, kind: str, host: str
) -> None:
    monkeypatch.setenv(
        f"DEVICEOPS_{kind.upper()}", f"{'amqp' if kind == 'amqp_url' else 'postgresql'}://u@{host}/d"
    )
    with pytest.raises(SettingsError, match=f"^DEVICEOPS_{kind.upper()}: "):
        Settings.load()
