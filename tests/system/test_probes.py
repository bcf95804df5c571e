"""What a running worker says of itself: probes, metrics, and messages to systemd, all of the same state."""

import json
import socket
import time
from collections import Counter
from pathlib import Path

import pytest
from aio_pika.abc import AbstractChannel

from tests.support.brokering import PATIENCE, declared, eventually, report, send, until_logged
from tests.support.command import Deviceops
from tests.support.notifying import notify_socket
from tests.support.watching import running

NOWHERE = "amqp://guest:guest@127.0.0.1:1/"


def test_a_worker_that_consumes_is_alive_and_ready(deviceops_on_broker: Deviceops) -> None:
    with running(deviceops_on_broker) as worker:
        eventually(worker.is_ready)
        assert worker.get("livez").json() == {"status": "alive"}
        assert worker.get("readyz").json() == {"status": "ready"}
        assert worker.get("elsewhere").status_code == 404


def test_a_worker_without_a_broker_is_alive_and_not_ready_and_says_why(deviceops_on_sqlite: Deviceops) -> None:
    with running(deviceops_on_sqlite.with_settings(amqp_url=NOWHERE)) as worker:
        eventually(lambda: "refused" in worker.get("readyz").text)
        answer = worker.get("readyz")
        assert worker.get("livez").status_code == 200
        assert answer.status_code == 503
        assert answer.json()["status"] == "not ready"
        assert "127.0.0.1:1" in answer.json()["reasons"]["broker"]
        assert "guest:guest" not in answer.text


def test_a_worker_without_a_database_is_alive_and_not_ready_and_says_why(deviceops_on_broker: Deviceops) -> None:
    away = deviceops_on_broker.with_settings(database_url="postgresql://nobody:s3cr3t@127.0.0.1:1/none")
    with running(away) as worker:
        eventually(lambda: "database" in worker.get("readyz").json().get("reasons", {}))
        assert worker.get("livez").status_code == 200
        assert worker.get("readyz").status_code == 503
        assert "s3cr3t" not in worker.get("readyz").text


async def test_metrics_count_what_became_of_the_reports(
    deviceops_on_broker: Deviceops, channel: AbstractChannel
) -> None:
    exchange = await declared(deviceops_on_broker, channel)
    once = {**report(), "report_id": "1"}
    await send(
        exchange, once, once, {**once, "state": "SUCCESS", "report_id": "2"}, report("SUCCESS"), b"unreadable"
    )
    with running(deviceops_on_broker) as worker:
        eventually(lambda: worker.metrics()["deviceops_received_total"] == 5)
        metrics = worker.metrics()
    expected = {
        "deviceops_reports_total drift-service applied": 2,
        "deviceops_reports_total drift-service duplicate": 1,
        "deviceops_reports_total drift-service rejected": 1,
        "deviceops_reports_total  rejected": 1,
        "deviceops_dead_letters_total malformed": 1,
        "deviceops_dead_letters_total unknown_device_operation": 1,
        "deviceops_batch_messages_sum": 5,
        "deviceops_ready": 1,
        "deviceops_dependency_up broker": 1,
        "deviceops_dependency_up database": 1,
        "deviceops_dependency_failures_total broker": 0,
    }
    assert {name: metrics[name] for name in expected} == expected
    assert metrics["process_resident_memory_bytes"] > 10_000_000
    assert metrics["deviceops_tasks"] > 1
    assert metrics["deviceops_commit_duration_seconds_count"] == metrics["deviceops_batch_messages_count"]
    assert 0 <= time.time() - metrics["deviceops_last_batch_timestamp_seconds"] < PATIENCE
    assert 0 < metrics["deviceops_commit_duration_seconds_sum"] < metrics["deviceops_batch_duration_seconds_sum"]


def test_a_port_that_was_asked_for_and_is_taken_is_a_clear_error(deviceops_on_broker: Deviceops) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = deviceops_on_broker.with_settings(probe_port=str(port))("run", "--until-idle", "1")
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith(f"deviceops: cannot listen on 127.0.0.1, port {port}: ")


async def test_the_default_port_is_no_reason_for_a_second_worker_not_to_run(
    deviceops_on_broker: Deviceops,
) -> None:
    with deviceops_on_broker.start("run") as first, deviceops_on_broker.start("run") as second:
        addresses = {json.loads(until_logged(each, "answering probes"))["url"] for each in (first, second)}
        for each in (first, second):
            until_logged(each, "consuming")
            each.terminate()
            assert each.wait(PATIENCE) == 0
    assert len(addresses) == 2


@pytest.mark.alone  # its bounds of time are of a machine that does nothing else
def test_systemd_hears_that_it_is_up_how_it_stands_and_that_it_lives(
    deviceops_on_broker: Deviceops, tmp_path: Path
) -> None:
    with notify_socket(tmp_path) as (name, messages):
        with running(deviceops_on_broker, NOTIFY_SOCKET=name):
            eventually(lambda: Counter(messages)["WATCHDOG=1"] >= 3)
        told = list(dict.fromkeys(messages))
    assert told[0] == "READY=1"
    assert "STATUS=consuming" in told
    assert "STOPPING=1" in told[-3:]
    assert told.index("WATCHDOG=1") < told.index("STATUS=consuming") < told.index("STOPPING=1")


def test_systemd_hears_that_it_is_up_also_while_broker_and_database_are_away(
    deviceops_on_sqlite: Deviceops, tmp_path: Path
) -> None:
    """Else systemd would give up on a service that only waits."""
    lonely = deviceops_on_sqlite.with_settings(amqp_url=NOWHERE)
    with notify_socket(tmp_path) as (name, messages), running(lonely, NOTIFY_SOCKET=name):
        eventually(lambda: any("refused" in message for message in messages))
    assert messages[0] == "READY=1"
    assert any(message.startswith("STATUS=broker: ") for message in messages)


@pytest.mark.parametrize("setting", ["probe_port", "drain_timeout", "stall_timeout", "hold_timeout"])
def test_settings_out_of_range_are_named(deviceops_on_sqlite: Deviceops, setting: str) -> None:
    refused = deviceops_on_sqlite.with_settings(**{setting: "-1"})("run", "--until-idle", "1")
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"deviceops: DEVICEOPS_{setting.upper()}: ")
