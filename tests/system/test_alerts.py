"""The alerts: each has a runbook, and each fires at the fault that it is for, in Debian's Prometheus."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from aio_pika.abc import AbstractChannel
from sqlalchemy import make_url, text

from tests.support.brokering import eventually, report, send
from tests.support.command import Deviceops
from tests.support.prometheus import MONITORING, prometheus, promtool
from tests.support.receiving import answering, receiving
from tests.support.sending import ANNOUNCEMENT, DEVICES, OPERATIONS, announcement_body, report_body
from tests.support.serving import serving
from tests.support.watching import running
from worker.store.database import Database


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


async def test_each_alert_fires_at_the_fault_that_it_is_for(
    deviceops_on_broker: Deviceops, channel: AbstractChannel, tmp_path: Path
) -> None:
    deviceops = deviceops_on_broker.with_settings(stale_after="1", stall_timeout="4", timeout_grace="3600")
    folder = tmp_path / "prometheus"
    folder.mkdir()
    with (
        receiving() as receiver,
        running(deviceops.with_settings(webhooks=receiver.setting("/ops"))) as worker,
        serving(deviceops) as server,
    ):
        eventually(worker.is_ready)
        exchange = await channel.get_exchange(deviceops.settings["topology_prefix"])
        await send(exchange, report())
        ports = {"deviceops-worker": worker.port, "deviceops-api": int(server.probes.rpartition(":")[2])}
        with prometheus(folder, ports) as watcher:
            eventually(lambda: watcher.query("up") == dict.fromkeys(ports, 1))
            eventually(lambda: watcher.query("deviceops_received_total") == {"deviceops-worker": 1})
            eventually(lambda: not watcher.firing())

            await refuse_changes(channel, deviceops.settings["topology_prefix"])
            receiver.behaviours["/ops"] = answering(410)
            late = datetime.now(UTC) - timedelta(minutes=2)
            await send(exchange, *(b"unreadable %d" % number for number in range(30)), timestamp=late)
            await send(exchange, report("SUCCESS"))
            announcement, failure = over_and_aborted()
            await send(exchange, announcement, type=ANNOUNCEMENT)
            await send(exchange, failure)
            await miscount(deviceops)
            await age_changes(deviceops)
            assert deviceops("recount").returncode == 3
            others = {alert["alert"] for alert in alerts()} - {"DeviceopsNotConsuming"}
            eventually(lambda: watcher.firing().keys() == others)
            deviceops.out("recount", "--fix")
            eventually(lambda: watcher.firing().keys() == others - {"DeviceopsCountersDrifted"})
            worker.process.kill()
            (alert,) = eventually(lambda: watcher.firing().get("DeviceopsNotConsuming"))
            assert alert["labels"]["instance"] == f"127.0.0.1:{worker.port}"
            assert alert["annotations"]["runbook_url"] == "deploy/monitoring/runbooks.md#deviceopsnotconsuming"


async def refuse_changes(channel: AbstractChannel, prefix: str) -> None:
    """Have a listener whose queue takes one change and refuses the next."""
    full: dict[str, Any] = {"x-max-length": 1, "x-overflow": "reject-publish"}
    queue = await channel.declare_queue("", exclusive=True, arguments=full)
    await queue.bind(f"{prefix}.changes", "#")


async def age_changes(deviceops: Deviceops) -> None:
    """Have the changes that are not published wait for an hour, and some of them be dropped."""
    database = Database(make_url(deviceops.settings["database_url"]))
    async with database.write() as connection:
        for table in ("outbox", "changes"):
            await connection.execute(text(f"UPDATE {table} SET recorded_at = recorded_at - 3600000"))  # noqa: S608
        dropping = text("UPDATE change_cursors SET dropped = dropped + 5 WHERE name LIKE 'relay:%'")
        assert (await connection.execute(dropping)).rowcount == 1
    await database.close()


def over_and_aborted() -> tuple[dict[str, Any], dict[str, Any]]:
    """An announcement of an operation that nothing more can come of, and a report with which it is aborted."""
    abort = {"failed_percent": 1, "min_settled": 1, "action": "notify"}
    late = datetime.now(UTC) - timedelta(hours=1)
    announcement = announcement_body(OPERATIONS[0], DEVICES, deadline=late.isoformat(), abort=abort)
    return announcement, report_body(OPERATIONS[0], DEVICES[0], "FAILURE")


async def miscount(deviceops: Deviceops) -> None:
    """Have a counter say what is not so."""
    database = Database(make_url(deviceops.settings["database_url"]))
    async with database.write() as connection:
        await connection.execute(text("UPDATE operations SET success_device_count = 7"))
    await database.close()
