"""The alerts: each has a runbook, and each fires at the fault that it is for, in Debian's Prometheus."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from aio_pika.abc import AbstractChannel
from sqlalchemy import make_url, text
from typer.testing import CliRunner

from tests.support.brokering import eventually, report, send
from tests.support.command import Deviceops
from tests.support.prometheus import MONITORING, prometheus, promtool
from tests.support.serving import serving
from tests.support.watching import running
from worker.cli import app
from worker.store.database import Database

RUNBOOKS = (MONITORING / "runbooks.md").read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        "check config prometheus.yml",
        "check rules --lint=all --lint-fatal alerts.yml",
        "test rules alerts_test.yml",
    ],
)
def test_promtool_has_no_objection_to_the_configuration_and_the_rules(arguments: str) -> None:
    assert "SUCCESS" in promtool(*arguments.split())


def alerts() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]:
        yield from group["rules"]


@pytest.mark.parametrize("alert", list(alerts()), ids=lambda alert: alert["alert"])
def test_every_alert_is_tested_and_says_how_bad_it_is_and_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert {"summary", "description", "runbook_url"} <= alert["annotations"].keys()
    anchor = alert["annotations"]["runbook_url"].removeprefix("deploy/monitoring/runbooks.md#")
    assert anchor in {heading.lower() for heading in re.findall(r"^## (\w+)$", RUNBOOKS, re.MULTILINE)}
    tests = yaml.safe_load((MONITORING / "alerts_test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"] if case["alertname"] == alert["alert"]]
    assert {"exp_alerts" in case for case in cases} == {True, False}, "one case fires, and one does not"


def test_every_command_of_the_runbooks_is_one_that_there_is() -> None:
    commands = set(re.findall(r"`deviceops ([a-z-]+(?: [a-z]+)?)((?: --[a-z-]+)*)", RUNBOOKS))
    assert len(commands) > 5
    runner = CliRunner()
    for command, options in commands:
        told = runner.invoke(app, [*command.split(), "--help"], env={"COLUMNS": "160"})
        assert told.exit_code == 0, command
        assert all(option in told.output for option in options.split()), (command, options)


async def test_each_alert_fires_at_the_fault_that_it_is_for(
    deviceops_on_broker: Deviceops, channel: AbstractChannel, tmp_path: Path
) -> None:
    deviceops = deviceops_on_broker.with_settings(stale_after="1", stall_timeout="4")
    folder = tmp_path / "prometheus"
    folder.mkdir()
    with running(deviceops) as worker, serving(deviceops) as server:
        eventually(worker.is_ready)
        exchange = await channel.get_exchange(deviceops.settings["topology_prefix"])
        await send(exchange, report())
        ports = {"deviceops-worker": worker.port, "deviceops-api": int(server.probes.rpartition(":")[2])}
        with prometheus(folder, ports) as watcher:
            eventually(lambda: watcher.query("up") == dict.fromkeys(ports, 1))
            eventually(lambda: watcher.query("deviceops_received_total") == {"deviceops-worker": 1})
            eventually(lambda: not watcher.firing())

            late = datetime.now(UTC) - timedelta(minutes=2)
            await send(exchange, *(b"unreadable %d" % number for number in range(30)), timestamp=late)
            await send(exchange, report("SUCCESS"))
            await miscount(deviceops)
            assert deviceops("recount").returncode == 3
            others = {alert["alert"] for alert in alerts()} - {"DeviceopsNotConsuming"}
            eventually(lambda: watcher.firing().keys() == others)
            deviceops.out("recount", "--fix")
            eventually(lambda: watcher.firing().keys() == others - {"DeviceopsCountersDrifted"})
            worker.process.kill()
            (alert,) = eventually(lambda: watcher.firing().get("DeviceopsNotConsuming"))
            assert alert["labels"]["instance"] == f"127.0.0.1:{worker.port}"
            assert alert["annotations"]["runbook_url"] == "deploy/monitoring/runbooks.md#deviceopsnotconsuming"


async def miscount(deviceops: Deviceops) -> None:
    """Have a counter say what is not so."""
    database = Database(make_url(deviceops.settings["database_url"]))
    async with database.write() as connection:
        await connection.execute(text("UPDATE operations SET success_device_count = 7"))
    await database.close()
