"""A fresh Debian: deviceops is installed, works as a service, is upgraded, and goes without a trace (--full)."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.brokering import eventually, report
from tests.support.databases import NewDatabase
from tests.support.debian_root import Booted, Debian, Tree, make
from tests.support.documents import block
from tests.support.services.machine import free_port

ROOT = Path(__file__).parents[2]
PAGE = "deploy/systemd/README.md"
INSTALL = "/checkout/deploy/install.sh"
until = partial(eventually, patience=120)

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make and run a Debian in a folder"),
]


@pytest.fixture(scope="session")
def template(full: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A fresh Debian, to be copied; and a folder of wheels beside it."""
    if not full:
        pytest.skip("takes minutes: with --full")
    folder = tmp_path_factory.mktemp("debian")
    make(folder / "template", "/checkout", "/wheels")
    _download_wheels(folder / "wheels")
    yield folder / "template"
    shutil.rmtree(folder)


def _download_wheels(folder: Path) -> None:
    """Have what the installer asks pip for, by the way that pip has here, which may be none that is there."""
    python = subprocess.run(
        ["apt-cache", "show", "--no-all-versions", "python3"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    version = python.partition("\nVersion: ")[2].split(".")[:2]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "-qq", "--only-binary=:all:"),
            *(
                f"--python-version={'.'.join(version)}",
                f"--constraint={ROOT / 'constraints.txt'}",
                f"--dest={folder}",
            ),
            *(project["project"]["dependencies"] + project["build-system"]["requires"]),
        ],
        check=True,
        timeout=600,
    )


@pytest.fixture
def debian(template: Path) -> Iterator[Debian]:
    """A fresh Debian of the test's own."""
    folder = template.with_name(f"copy-{free_port()}")
    subprocess.run(["cp", "--archive", "--reflink=auto", template, folder], check=True)
    yield Debian(
        folder,
        {"/checkout": ROOT, "/wheels": template.with_name("wheels")},
        {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels", "LANG": "C.UTF-8"},
    )
    shutil.rmtree(folder)


def out(done: subprocess.CompletedProcess[str]) -> str:
    """What a command that must succeed printed."""
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def operations(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """What `deviceops status --json` printed."""
    found: list[dict[str, Any]] = json.loads(out(done))
    return found


def changes(before: Tree, after: Tree) -> Mapping[str, object]:
    return {name: (before.get(name), after.get(name)) for name in before.keys() ^ after.keys()} | {
        name: (before[name], after[name]) for name in before.keys() & after.keys() if before[name] != after[name]
    }


def test_it_installs_where_no_systemd_runs_keeps_what_was_set_and_leaves_nothing(debian: Debian) -> None:
    before = debian.tree()
    refused = debian("setpriv", "--reuid=65534", "--clear-groups", INSTALL)
    assert refused.stderr.startswith("deploy/install.sh wants to be run by root: sudo deploy/install.sh\n")
    assert "Usage: " in debian(INSTALL, "--unknown").stderr
    assert changes(before, debian.tree()) == {}

    assert "nothing was started, as it is not known which database and which broker" in out(debian(INSTALL))
    unknown = debian("deviceops", "status")
    assert unknown.stderr.startswith("deviceops: DEVICEOPS_DATABASE_URL: is not a database URL ")
    assert unknown.returncode == 2
    database = "DEVICEOPS_DATABASE_URL=sqlite:////var/lib/deviceops/deviceops.db"
    assert "nothing was started, as it is not known" in out(debian("env", database, INSTALL))
    (debian.folder / "etc/deviceops/credentials/amqp_url").write_text("amqp://somebody:s3cr3t@localhost:1/\n")
    assert "nothing was started, as systemd does not run here" in out(debian(INSTALL))
    (debian.folder / "etc/deviceops/deviceops.env").write_text("DEVICEOPS_SERVICES='{\"drift-service\": {}}'\n")
    out(debian("sh", "-c", f"echo '{json.dumps(report())}' | deviceops ingest -"))
    kept = {name: what for name, what in debian.tree().items() if name.startswith(("etc/", "var/lib/deviceops"))}
    assert kept["etc/deviceops/credentials/amqp_url"][0] == oct(0o100640)

    out(debian(INSTALL))
    again = debian.tree()
    assert {name: again.get(name) for name in kept} == kept
    shown = debian("deviceops", "check").stdout
    settings = {
        name: value for name, value, *_ in (line.split() for line in shown.splitlines() if line.split()[1:])
    }
    assert settings["DEVICEOPS_SERVICES"] == '{"drift-service":{}}'
    assert settings["DEVICEOPS_AMQP_URL"] == "amqp://somebody:***@localhost:1/"

    assert "/var/lib/deviceops (data)" not in out(debian(INSTALL, "--uninstall", "--keep-data"))
    assert not (debian.folder / "opt/deviceops").exists()
    out(debian(INSTALL))
    assert len(operations(debian("deviceops", "status", "--json"))) == 1
    assert "/var/lib/deviceops (data)" in out(debian(INSTALL, "--uninstall"))
    assert changes(before, debian.tree()) == {}


def _settings(debian: Debian, **settings: object) -> None:
    """Have settings there before it is installed."""
    (debian.folder / "etc/deviceops").mkdir()
    lines = (f"DEVICEOPS_{name.upper()}={value}\n" for name, value in settings.items())
    (debian.folder / "etc/deviceops/deviceops.env").write_text("".join(lines))


def test_under_systemd_a_report_that_is_published_is_seen_and_nothing_is_left_in_the_end(
    debian: Debian, new_postgresql_database: NewDatabase, amqp_url: str, topology_prefix: str
) -> None:
    api, probes, first, second = free_port(), free_port(), free_port(), free_port()
    urls = {"DEVICEOPS_DATABASE_URL": new_postgresql_database(), "DEVICEOPS_AMQP_URL": amqp_url}
    with debian.booted() as machine:
        before = debian.tree()
        _settings(debian, topology_prefix=topology_prefix, http_port=api, http_probe_port=probes)
        said = out(_type(machine, block(PAGE, "install"), **urls))
        assert "== Done. How it stands: " in said
        assert machine.property("deviceops-worker@8081.service", "UnitFileState") == "enabled"
        out(machine("systemctl", "disable", "--now", "deviceops-worker@8081"))  # a port that may be taken here
        more = block(PAGE, "more-workers").replace("8083", str(first)).replace("8084", str(second))
        out(_type(machine, more))
        out(machine("systemctl", "enable", "--now", "deviceops-api"))

        out(machine("deviceops", "publish", "-", lines=json.dumps(report())))
        until(lambda: operations(machine("deviceops", "status", "--json")))
        until(lambda: httpx.get(f"http://127.0.0.1:{second}/readyz").status_code == 200)
        until(lambda: _count(api) == 1)
        assert ": ready, " in out(_type(machine, block(PAGE, "configure")))
        until(lambda: machine.property(f"deviceops-worker@{first}.service", "StatusText") == "consuming")
        seen = out(_type(machine, block(PAGE, "state").replace("--follow ", "")))
        assert 'Status: "consuming"' in seen
        assert '"event": "answering probes"' in seen
        for upkeep in ("prune", "recount"):
            out(machine("systemctl", "start", f"deviceops-{upkeep}.service"))
            assert machine.property(f"deviceops-{upkeep}.timer", "ActiveState") == "active"
        _is_confined(machine, f"deviceops-worker@{first}.service")
        _is_started_again_when_it_hangs(debian, machine, f"deviceops-worker@{first}.service")

        was = machine.property(f"deviceops-worker@{second}.service", "MainPID")
        out(machine(INSTALL))
        assert machine.property(f"deviceops-worker@{second}.service", "MainPID") not in (was, "0")
        assert machine.property("deviceops-worker@8081.service", "ActiveState") == "inactive"
        ended = machine("journalctl", "--output=cat", f"--unit=deviceops-worker@{second}").stdout
        assert "Deactivated successfully" in ended  # with 0, within TimeoutStopSec
        until(lambda: _count(api) == 1)

        out(_type(machine, block(PAGE, "uninstall")))
        assert machine("systemctl", "list-units", "--all", "--plain", "--no-legend", "deviceops*").stdout == ""
        assert changes(before, debian.tree()) == {}


def _type(machine: Booted, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Type what the page shows, as root, who needs no sudo; who edits a file leaves it as it is."""
    helpers = 'cd /checkout; sudo() { "$@"; }; editor() { test -w "$1"; }\n'
    return machine(
        "env", *(f"{name}={value}" for name, value in variables.items()), "bash", "-c", helpers + script
    )


def _count(port: int) -> int | None:
    """How many operations the API has."""
    try:
        count: int = httpx.get(f"http://127.0.0.1:{port}/v0/operations/").json()["count"]
    except httpx.TransportError:
        return None
    return count


def _is_confined(machine: Booted, unit: str) -> None:
    status = machine("cat", f"/proc/{machine.property(unit, 'MainPID')}/status").stdout
    facts = dict(line.split(":\t") for line in status.splitlines())
    assert facts["Uid"].split("\t")[0] != "0"
    assert (int(facts["CapBnd"], 16), facts["NoNewPrivs"], facts["Seccomp"]) == (0, "1", "2")


def _is_started_again_when_it_hangs(debian: Debian, machine: Booted, unit: str) -> None:
    drop_in = debian.folder / "etc/systemd/system/deviceops-worker@.service.d/patience.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\nWatchdogSec=3\n")
    out(machine("systemctl", "daemon-reload"))
    out(machine("systemctl", "restart", unit))
    out(machine("systemctl", "kill", "--kill-whom=main", "--signal=STOP", unit))
    until(lambda: machine.property(unit, "NRestarts") == "1")
    until(lambda: machine.property(unit, "StatusText") == "consuming")
