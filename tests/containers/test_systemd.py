"""The units as systemd's own tools judge them, and a worker that is started as its unit says."""

import os
import re
import shutil
import signal
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import httpx
import pytest

from tests.support.brokering import PATIENCE, eventually, until_logged
from tests.support.command import Deviceops
from tests.support.notifying import notify_socket
from tests.support.services.machine import free_port
from worker.config.secret_files import variable
from worker.config.settings import Settings
from worker.watch.watchdog import EXIT_GRACE

SYSTEMD = Path(__file__).parents[2] / "deploy/systemd"
SERVICES = sorted(path.name for path in SYSTEMD.glob("*.service"))
UNITS = sorted(path.name for kind in ("service", "timer", "target") for path in SYSTEMD.glob(f"*.{kind}"))
MAX_EXPOSURE = 1.5


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, with a program that is there on this machine too."""
    folder = tmp_path / "units"
    shutil.copytree(SYSTEMD, folder)
    for service in folder.glob("*.service"):
        service.write_text(service.read_text().replace("/opt/deviceops/bin/deviceops", sys.executable))
    return folder


def service(name: str) -> dict[str, str]:
    """What a unit and what all units have in common say of the service; of what is said twice, the last."""
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read([SYSTEMD / "deviceops-.service.d/common.conf", SYSTEMD / name])
    return dict(parser["Service"])


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_finds_nothing_wrong_with_a_unit(units: Path, unit: str) -> None:
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=one", units / unit],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")


@pytest.mark.parametrize("unit", SERVICES)
def test_a_service_is_exposed_to_little(units: Path, unit: str) -> None:
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", units / unit],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    exposure = re.search(r"Overall exposure level for .*: ([0-9.]+)", judged.stdout)
    assert exposure is not None, judged.stdout
    assert float(exposure[1]) <= MAX_EXPOSURE, judged.stdout


def test_what_a_worker_needs_to_end_by_itself_is_what_systemd_gives_it() -> None:
    """So that the worker can say what went wrong, before systemd kills it."""
    settings, worker = Settings(_env_file=None), service("deviceops-worker@.service")
    assert int(worker["WatchdogSec"]) > settings.stall_timeout
    assert int(worker["TimeoutStopSec"]) > settings.drain_timeout + EXIT_GRACE


def test_every_setting_has_one_place_and_the_environment_file_tells_the_defaults(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("DEVICEOPS_")]:
        monkeypatch.delenv(name)
    defaults = Settings.load()
    lines = dict(re.findall(r"^#?(DEVICEOPS_\w+)=(.*)$", (SYSTEMD / "deviceops.env").read_text(), re.MULTILINE))
    secrets = set(re.findall(r"/etc/deviceops/credentials/(\w+)", (SYSTEMD / "README.md").read_text()))
    places = [*lines, *map(variable, secrets), service("deviceops-worker@.service")["Environment"].split("=")[0]]
    assert sorted(places) == sorted(map(variable, Settings.model_fields))

    for name, value in lines.items():
        monkeypatch.setenv(name, value)
    assert Settings.load() == defaults


def test_a_worker_started_as_its_unit_says_is_up_and_alive_and_leaves_in_time(
    deviceops_on_broker: Deviceops, tmp_path: Path
) -> None:
    unit, port = service("deviceops-worker@.service"), free_port()
    credential = unit["LoadCredential"].partition(":")[0]
    for name, value in deviceops_on_broker.settings.items():
        (tmp_path / f"{credential}_{name}").write_text(f"{value}\n")
    name, _, value = unit["Environment"].replace("%i", str(port)).partition("=")
    with notify_socket(tmp_path) as (socket, messages):
        environment = {"NOTIFY_SOCKET": socket, "CREDENTIALS_DIRECTORY": str(tmp_path), name: value}
        worker = Deviceops(tmp_path).with_environment(**environment)
        with worker.start(*unit["ExecStart"].split()[1:]) as process:
            try:
                assert deviceops_on_broker.settings["topology_prefix"] in until_logged(process, "consuming")
                eventually(lambda: {"READY=1", "WATCHDOG=1", "STATUS=consuming"} <= set(messages))
                assert httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=PATIENCE).status_code == 200
                process.send_signal(signal.SIGTERM)
                assert process.wait(int(unit["TimeoutStopSec"])) == 0
            finally:
                process.kill()
    assert "STOPPING=1" in messages
