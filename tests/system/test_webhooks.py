"""Webhooks of running workers: kills, restarts, several of them, no broker, and the commands about webhooks."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.brokering import eventually, report
from tests.support.command import Deviceops
from tests.support.documents import block, blocks
from tests.support.receiving import SECRET, Receiver, answering, hanging, receiving, slow
from tests.support.services import PrivatePostgreSQL
from tests.support.services.machine import free_port
from tests.support.watching import running

PAGE = "deploy/webhooks.md"


def happen(deviceops: Deviceops, number: int = 1) -> set[str]:
    """Operations begin, by a command that needs no broker; gives their ids."""
    ids = [str(uuid4()) for _ in range(number)]
    deviceops.out("ingest", "-", lines="\n".join(json.dumps(report(operation=id_)) for id_ in ids))
    return set(ids)


def operations(receiver: Receiver, path: str) -> set[str]:
    return {each.body["data"]["operation_id"] for each in receiver.at(path)}


def with_webhooks(deviceops: Deviceops, receiver: Receiver, *paths: str) -> Deviceops:
    return deviceops.with_settings(webhooks=receiver.setting(*paths))


def is_registered(deviceops: Deviceops) -> bool:
    return all(each["state"] != "new" for each in deviceops.document("webhooks", "list"))


def test_a_worker_without_a_broker_sends_and_leaves_when_it_is_told_to(deviceops: Deviceops) -> None:
    with receiving(dead=hanging()) as receiver:
        deviceops = with_webhooks(deviceops, receiver, "/a", "/dead")
        with running(deviceops) as worker:
            eventually(lambda: is_registered(deviceops))
            begun = happen(deviceops, 20)
            eventually(lambda: operations(receiver, "/a") == begun and receiver.at("/dead"))
            eventually(lambda: worker.metrics()["deviceops_webhook_deliveries_total delivered a"] == 20)
            assert worker.metrics()["deviceops_webhook_off a"] == 0
            told = time.monotonic()
            worker.process.send_signal(signal.SIGTERM)
            worker.process.communicate(timeout=20)
            assert worker.process.returncode == 0
            assert time.monotonic() - told < 15


def test_a_worker_that_is_killed_with_an_attempt_in_hand_leaves_it_to_another(deviceops: Deviceops) -> None:
    with receiving(a=hanging()) as receiver:
        deviceops = with_webhooks(deviceops, receiver, "/a")
        with running(deviceops) as worker:
            eventually(lambda: is_registered(deviceops))
            begun = happen(deviceops, 15)
            eventually(lambda: len(receiver.at("/a")) == 10)
            worker.process.kill()
            worker.process.wait()
        receiver.behaviours["/a"] = answering(204)
        with running(deviceops):
            eventually(lambda: operations(receiver, "/a") == begun, 60)
            eventually(lambda: deviceops.document("webhooks", "list")[0]["owed"] == 0)
    ids = receiver.ids("/a")
    assert len(ids) == 15
    assert sorted(ids.values()) == [1] * 5 + [2] * 10


def test_two_workers_share_what_is_owed(deviceops: Deviceops) -> None:
    with receiving(a=slow(0.1, 204)) as receiver:
        deviceops = with_webhooks(deviceops, receiver, "/a")
        with running(deviceops) as one, running(deviceops) as other:
            eventually(lambda: is_registered(deviceops))
            begun = happen(deviceops, 100)
            eventually(lambda: operations(receiver, "/a") == begun, 60)
            delivered = "deviceops_webhook_deliveries_total delivered a"
            eventually(lambda: one.metrics()[delivered] + other.metrics()[delivered] == 100)
    assert set(receiver.ids("/a").values()) == {1}
    assert receiver.most_at_once <= 10


def test_a_restart_of_the_database_loses_nothing(tmp_path: Path) -> None:
    with PrivatePostgreSQL() as server, receiving(a=slow(0.05, 204)) as receiver:
        settings = {"database_url": server.url, "amqp_url": "amqp://guest:guest@127.0.0.1:1/"}
        deviceops = with_webhooks(Deviceops(tmp_path, settings), receiver, "/a")
        deviceops.out("migrate")
        with running(deviceops) as worker:
            eventually(lambda: is_registered(deviceops))
            begun = happen(deviceops, 100)
            eventually(lambda: receiver.at("/a"))
            server.kill()
            server.start()
            eventually(lambda: operations(receiver, "/a") == begun, 60)
            begun |= happen(deviceops, 5)
            eventually(lambda: operations(receiver, "/a") == begun, 60)
            assert worker.process.poll() is None


def test_what_is_set_can_be_listed_tried_out_and_switched_on(deviceops: Deviceops) -> None:
    with receiving(off=answering(410), away=answering(503)) as receiver:
        deviceops = with_webhooks(deviceops, receiver, "/ok", "/off", "/away")
        assert {each["state"] for each in deviceops.document("webhooks", "list")} == {"new"}
        with running(deviceops):
            eventually(lambda: is_registered(deviceops))
            happen(deviceops)
            eventually(
                lambda: (
                    [each["state"] for each in deviceops.document("webhooks", "list")] == ["failing", "off", "on"]
                )
            )
        away, off, ok = deviceops.document("webhooks", "list")
        assert (away["owed"], off["owed"], ok["owed"]) == (1, 1, 0)
        assert (away["last_failure"]["status"], off["last_failure"]["status"]) == (503, 410)
        assert (away["last_failure"]["error"], ok["last_success"]["status"]) == ("answered 503, an error", 204)
        assert away["oldest"] is not None
        assert ok["url"] == f"http://127.0.0.1:{receiver.port}/***"
        assert ok["types"] == sorted(ok["types"])
        lines = deviceops.out("webhooks", "list").splitlines()
        assert [line.split()[:4][-1] for line in lines[1:]] == ["1", "1", "0"]

        assert "answered 204" in deviceops.out("webhooks", "test", "ok")
        assert receiver.at("/ok")[-1].body["data"] == {"webhook": "ok"}
        assert deviceops.document("webhooks", "test", "ok")["status"] == 204
        tried = deviceops("webhooks", "test", "away")
        assert (tried.returncode, tried.stderr) == (1, "deviceops: webhook away: answered 503, an error\n")
        unknown = deviceops("webhooks", "test", "nobody")
        assert (unknown.returncode, "no webhook has the name 'nobody'" in unknown.stderr) == (1, True)

        receiver.behaviours["/off"] = answering(204)
        assert "is on" in deviceops.out("webhooks", "enable", "off")
        assert deviceops("webhooks", "enable", "nobody").returncode == 1
        with running(deviceops):
            eventually(
                lambda: [each["state"] for each in deviceops.document("webhooks", "list")][1:] == ["on"] * 2
            )


def test_no_output_has_a_secret_or_a_path_of_a_webhook(deviceops_on_sqlite: Deviceops) -> None:
    with receiving() as receiver:
        setting = json.loads(receiver.setting("/hooks/t0ken?key=k3y"))
        value = {
            "ops": next(iter(setting.values())),
            "gone": {"url": "https://nowhere.invalid/t0ken", "secret": SECRET},
        }
        deviceops = deviceops_on_sqlite.with_settings(
            webhooks=json.dumps(value), log_level="DEBUG", amqp_url="amqp://guest:guest@127.0.0.1:1/"
        )
        with deviceops.start("run") as worker:
            eventually(lambda: is_registered(deviceops))
            happen(deviceops)
            eventually(lambda: deviceops.document("webhooks", "list")[0]["state"] == "failing")
            worker.terminate()
            told = "".join(worker.communicate(timeout=30))
        assert "webhook fails" in told
        for command in (
            ("check",),
            ("webhooks", "list"),
            ("webhooks", "list", "--json"),
            ("webhooks", "test", "gone"),
        ):
            done = deviceops(*command)
            told += done.stdout + done.stderr
    for secret in (SECRET[6:], "t0ken", "k3y"):
        assert secret not in told


def test_a_wrong_setting_is_refused_before_anything_is_done(deviceops_on_sqlite: Deviceops) -> None:
    wrong = {"ops": {"url": "http://example.com/t0ken", "secret": SECRET}}
    done = deviceops_on_sqlite.with_settings(webhooks=json.dumps(wrong))("status")
    assert done.returncode == 2
    assert "DEVICEOPS_WEBHOOKS ops: url: begins with https://" in done.stderr
    assert "t0ken" not in done.stderr


def test_the_page_for_receivers_shows_a_receiver_that_works(deviceops_on_sqlite: Deviceops) -> None:
    [snippet] = blocks(PAGE, "python")
    secret = deviceops_on_sqlite.out(*block(PAGE, "webhook-secret").split()[1:]).strip()
    port = free_port()
    command = [sys.executable, "-c", snippet.text, secret, str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as receiver:
        try:
            setting = {"ops": {"url": f"http://127.0.0.1:{port}/", "secret": secret, "allow_private": True}}
            deviceops = deviceops_on_sqlite.with_settings(webhooks=json.dumps(setting))
            eventually(lambda: deviceops("webhooks", "test", "ops").returncode == 0)
            forged = {"ops": {**setting["ops"], "secret": SECRET}}
            done = deviceops.with_settings(webhooks=json.dumps(forged))("webhooks", "test", "ops")
            assert "answered 401" in done.stderr
            receiver.terminate()
            printed, _ = receiver.communicate(timeout=20)
        finally:
            receiver.kill()
    assert printed == "webhook.test {'webhook': 'ops'}\n"


def test_the_setting_on_the_page_is_valid(deviceops_on_sqlite: Deviceops) -> None:
    value = block(PAGE, "webhooks").removeprefix("DEVICEOPS_WEBHOOKS='").rstrip().removesuffix("'")
    (found,) = deviceops_on_sqlite.with_settings(webhooks=value).document("webhooks", "list")
    assert (found["name"], found["url"]) == ("ops", "https://example.com/***")
    assert found["types"] == ["operation.aborted", "operation.changed"]


@pytest.mark.parametrize("command", ["status", "webhooks --help"])
def test_commands_that_send_nothing_do_not_import_the_client(deviceops_on_sqlite: Deviceops, command: str) -> None:
    program = f"import sys; sys.argv[1:] = {command.split()}\nfrom worker.__main__ import main\n"
    program += "try:\n    main()\nfinally:\n    assert 'aiohttp' not in sys.modules\n"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=deviceops_on_sqlite.variables,
        capture_output=True,
        text=True,
        check=False,
        cwd=deviceops_on_sqlite.directory,
    )
    assert "AssertionError" not in done.stderr
