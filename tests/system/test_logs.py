"""The log: one format, whoever says it, for people on a terminal and programs elsewhere; never what was sent."""

import asyncio
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import yarl
from aio_pika.abc import AbstractChannel
from structlog.testing import capture_logs

from statemachine import Verdict
from tests.support.brokering import PATIENCE, declared, eventually, report, send
from tests.support.command import Deviceops
from tests.support.proxy import proxy_to
from tests.support.serving import PATH, put, serving
from worker.model.outcomes import DeadLetterExample, Reason, Tally
from worker.watch.rejection_log import DeadLetterLog

PLANTED = "pl4nt3d"
"""Stands in what is sent, or in what only a program knows, and must not stand in the log."""
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")

TROUBLES = f"""
import asyncio, gc, logging, sys, threading, warnings
from worker.cli import log_format

log_format.configure("INFO", sys.argv[1])
warnings.warn("something is deprecated")
logging.getLogger("sqlalchemy.pool").error("a connection is %s", "lost")
logging.getLogger("aiormq.connection").error("repeats what ours say")
logging.getLogger("some.library").info("tells too much")
secret = "{PLANTED}"

def fail():
    hidden = secret
    raise KeyError("why")

async def main():
    task = asyncio.create_task(asyncio.to_thread(fail))
    await asyncio.wait([task])
    del task
    gc.collect()
    threading.Thread(target=fail).start()

asyncio.run(main())
fail()
"""
"""A program in which everything goes wrong of which Python or a library has something to say."""


def entries(log: str) -> list[dict[str, Any]]:
    """The lines of a log, each of which must be what a program expects."""
    lines = [json.loads(line) for line in log.splitlines()]
    for line in lines:
        assert list(line)[:4] == ["timestamp", "level", "event", "logger"], line
        assert TIME.fullmatch(line["timestamp"]), line
        assert line["level"] in ("debug", "info", "warning", "error", "critical"), line
    return lines


def conflict() -> list[dict[str, Any]]:
    """Three reports of a device, of which the last is a conflict."""
    operation, device = str(uuid4()), str(uuid4())
    return [
        {**report(s, device, operation), "reason": PLANTED, "report_id": s}
        for s in ("CREATED", "FAILURE", "SUCCESS")
    ]


def as_lines(*bodies: object) -> str:
    return "".join(f"{json.dumps(body)}\n" for body in bodies)


async def test_every_line_of_a_worker_with_troubles_is_json_and_none_has_what_was_sent(
    deviceops_on_broker: Deviceops, channel: AbstractChannel, tmp_path: Path
) -> None:
    exchange = await declared(deviceops_on_broker, channel)
    broker = yarl.URL(deviceops_on_broker.settings["amqp_url"])
    log = tmp_path / "log"

    async def logged(words: str, times: int = 1) -> None:
        await asyncio.to_thread(eventually, lambda: log.read_text().count(words) >= times)

    async with proxy_to(str(broker.host), broker.port or 5672) as proxy:
        url = str(broker.with_host("127.0.0.1").with_port(proxy.port))
        deviceops = deviceops_on_broker.with_settings(amqp_url=url, probe_port="0")
        with log.open("w") as file, deviceops.running("run", stderr=file) as worker:
            await logged('"consuming"')
            proxy.cut()
            await logged('"consuming"', times=2)
            await send(exchange, *conflict(), PLANTED.encode(), message_id="the-message")
            await logged('"dead letters"')
            probes = urlsplit(next(entry["url"] for entry in entries(log.read_text()) if "url" in entry))
            with socket.create_connection((probes.hostname or "", probes.port or 0)) as connection:
                connection.sendall(b"nonsense\r\n\r\n")
                await logged("Invalid HTTP")
            worker.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(worker.wait, PATIENCE) == 0
    found = entries(log.read_text())
    assert PLANTED not in log.read_text()
    assert [entry["level"] for entry in found if entry["event"] == "broker connection lost, reconnecting"] == [
        "warning"
    ]
    assert [entry["logger"] for entry in found if "Invalid HTTP" in entry["event"]] == ["uvicorn.error"]
    letters = [entry for entry in found if entry["event"] == "dead letters"]
    assert {name for entry in letters for name in ("conflict", "malformed") if name in entry} == {
        "conflict",
        "malformed",
    }
    assert {example["reason"]: sorted(example) for entry in letters for example in entry["first"]} == {
        "conflict": ["device_id", "id", "message_id", "operation_id", "reason"],
        "malformed": ["id", "message_id", "reason"],
    }


def test_a_terminal_gets_lines_for_people(deviceops_on_broker: Deviceops) -> None:
    log = on_terminal(deviceops_on_broker, "run", "--until-idle", "0.3")
    assert re.search(r"info .*consuming .*queue", log)
    assert '{"' not in log
    assert "\x1b[" in log, "in colour"
    assert "\x1b[" not in on_terminal(
        deviceops_on_broker.with_environment(NO_COLOR="1"), "run", "--until-idle", "0.3"
    )


def test_the_format_can_be_chosen_whatever_standard_error_is(deviceops_on_broker: Deviceops) -> None:
    as_json = deviceops_on_broker.with_settings(log_format="json")
    assert "consuming" in [entry["event"] for entry in entries(on_terminal(as_json, "run", "--until-idle", "0.3"))]
    as_text = deviceops_on_broker.with_settings(log_format="text")("run", "--until-idle", "0.3")
    assert re.search(r"info .*consuming .*queue", as_text.stderr)
    assert "\x1b[" not in as_text.stderr


def on_terminal(deviceops: Deviceops, *command: str) -> str:
    """What a command that must succeed says on standard error, if that is a terminal."""
    ours, its = pty.openpty()
    with deviceops.start(*command, stderr=its) as process:
        os.close(its)
        said = b""
        while chunk := read_terminal(ours):
            said += chunk
        assert process.wait(PATIENCE) == 0
    os.close(ours)
    return said.decode()


def read_terminal(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # how Linux says that the other end is closed
        return b""


def test_a_batch_is_one_line_at_debug_with_what_became_of_it_and_nothing_of_what_was_sent(
    deviceops_on_sqlite: Deviceops,
) -> None:
    first, second = conflict(), conflict()
    debugging = deviceops_on_sqlite.with_settings(log_level="DEBUG", batch_size="3")
    done = debugging("ingest", "-", "--json", lines=as_lines(*first, *second))
    batches = [entry for entry in entries(done.stderr) if entry["event"] == "batch committed"]
    assert [batch["operation_ids"] for batch in batches] == [
        [reports[0]["operation_id"]] for reports in (first, second)
    ]
    for batch in batches:
        assert batch["level"] == "debug"
        assert (batch["received"], batch["applied"], batch["operations"]) == (3, 2, 1)
        assert batch["dead_lettered"] == {"conflict": 1}
        assert 0 < batch["seconds"] < PATIENCE
    assert PLANTED not in done.stderr
    quiet = deviceops_on_sqlite("ingest", "-", lines=as_lines(*conflict()))
    assert [entry["event"] for entry in entries(quiet.stderr)] == ["using the database"]


async def test_however_many_dead_letters_there_are_the_log_has_one_line_an_interval_that_counts_them() -> None:
    example = DeadLetterExample(Reason.CONFLICT, 7, "an\x1b[31mid", uuid4(), None)
    batch = Tally(examples=[example])
    batch.dead_lettered[Reason.CONFLICT] = 2
    rejections = DeadLetterLog(interval=0.2)
    with capture_logs() as logged:
        rejections.note(Tally())
        assert logged == []
        for _ in range(100):
            rejections.note(batch)
        assert [line["conflict"] for line in logged] == [2], "the first at once"
        assert logged[0]["first"] == [
            {
                "reason": "conflict",
                "id": "7",
                "message_id": "an\\x1b[31mid",
                "operation_id": str(example.operation_id),
            }
        ]
        async with asyncio.timeout(10):
            while rejections._pause is not None:  # noqa: ASYNC110  # after which it tells at once again
                await asyncio.sleep(0.01)
        assert [line["conflict"] for line in logged] == [2, 198]
        assert len(logged[1]["first"]) == 3
        rejections.note(batch)
        rejections.note(batch)
        rejections.close()
    assert [line["conflict"] for line in logged] == [2, 198, 2, 2], "and what is left at the end"


def test_what_libraries_and_python_say_has_the_same_format_and_no_values_of_variables() -> None:
    for format_ in ("json", "text"):
        done = subprocess.run(
            [sys.executable, "-c", TROUBLES, format_],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert done.returncode == 1
        assert PLANTED not in done.stderr.replace(f'secret = "{PLANTED}"', "")
        assert "repeats what ours say" not in done.stderr
        assert "tells too much" not in done.stderr
        if format_ == "json":
            said = {entry["logger"]: entry for entry in entries(done.stderr)}
            ours = [entry for entry in entries(done.stderr) if entry["logger"] == "worker.cli.log_format"]
    assert "something is deprecated" in said["py.warnings"]["event"]
    assert said["sqlalchemy.pool"]["event"] == "a connection is lost"
    assert "never retrieved" in said["asyncio"]["event"]
    assert [(entry["level"], entry["event"]) for entry in ours] == [
        ("error", "a defect in a thread"),
        ("critical", "a defect"),
    ]
    for entry in (said["asyncio"], *ours):
        assert "Traceback" in entry["exception"]
        assert entry["exception"].endswith("KeyError: 'why'")


def test_where_only_json_is_wanted_so_is_what_ends_a_command(deviceops_on_sqlite: Deviceops) -> None:
    lonely = deviceops_on_sqlite.with_settings(amqp_url="amqp://127.0.0.1:1/")
    plain = lonely("publish", "-", lines=as_lines(report()))
    assert plain.stderr.startswith("deviceops: broker amqp://127.0.0.1:1/: ")
    [entry] = entries(lonely.with_settings(log_format="json")("publish", "-", lines=as_lines(report())).stderr)
    assert (entry["level"], entry["event"], entry["exit_code"]) == ("critical", "failed", 1)
    assert f"deviceops: {entry['error']}\n" == plain.stderr


def test_a_request_is_one_line_without_its_body_and_its_token(deviceops_on_sqlite: Deviceops) -> None:
    with serving(deviceops_on_sqlite) as server, server.client() as api:
        response = put(api, "CREATED", reason=PLANTED)
        server.stop()
    assert response.headers["X-Verdict"] == Verdict.APPLIED
    [line] = [entry for entry in server.log if entry["event"] == "request"]
    assert (line["method"], line["path"], line["status"], line["caller"]) == ("PUT", PATH, 200, "tests")
    assert line["request_id"] == response.headers["X-Request-ID"]
    assert PLANTED not in json.dumps(server.log)
    assert server.token not in json.dumps(server.log)
