"""Traces: a batch's span links to the producers' spans, a collector that fails disturbs nobody, and off is off."""

import asyncio
import json
import re
import socket
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from aio_pika.abc import AbstractChannel
from sqlalchemy import make_url

from tests.support.brokering import PATIENCE, declared, eventually, report, send, until_logged
from tests.support.collector import MALFORMED, SPAN, TRACE, TRACEPARENT, attributes, collecting
from tests.support.command import Deviceops
from tests.support.services.machine import free_port

PARTS = ("transaction", "load", "decide", "write")


def traced(deviceops: Deviceops, url: str, **more: str) -> Deviceops:
    """The command with traces, whose spans wait for no longer than they must."""
    return deviceops.with_environment(OTEL_EXPORTER_OTLP_ENDPOINT=url, OTEL_BSP_SCHEDULE_DELAY="100", **more)


def operations_in(deviceops: Deviceops) -> int:
    """How many operations the SQLite file has; to ask by a command takes longer than all else."""
    path = make_url(deviceops.settings["database_url"]).database
    assert path is not None
    with closing(sqlite3.connect(path)) as connection:
        count: int = connection.execute("SELECT count(*) FROM operations").fetchone()[0]
    return count


async def test_the_span_of_a_batch_links_to_the_span_that_a_report_was_sent_in(
    deviceops_on_broker: Deviceops, channel: AbstractChannel
) -> None:
    exchange = await declared(deviceops_on_broker, channel)
    await send(exchange, report(), message_id="linked", headers={"traceparent": TRACEPARENT})
    await send(exchange, report(), message_id="alone")
    for header in MALFORMED:
        await send(exchange, report(), headers={"traceparent": header})

    with collecting() as collector:
        deviceops = traced(deviceops_on_broker, collector.url).with_settings(log_level="DEBUG")
        done = await asyncio.to_thread(deviceops, "run", "--until-idle", "0.5", "--json")

    assert json.loads(done.stdout)["applied"] == 2 + len(MALFORMED)
    prefix = deviceops.settings["topology_prefix"]
    batches = collector.named("process ")
    assert {batch.name for batch in batches} == {f"process {prefix}:{prefix}.reports"}
    [link] = [link for batch in batches for link in batch.links]
    assert (link.trace_id.hex(), link.span_id.hex()) == (TRACE, SPAN)
    assert attributes(link) == {"messaging.message.id": "linked"}
    told = attributes(batches[0])
    assert told["messaging.system"] == "rabbitmq"
    assert told["messaging.operation.type"] == "process"
    assert told["messaging.destination.name"] == f"{prefix}:{prefix}.reports"
    assert told["server.port"] == 5672
    assert sum(int(attributes(batch)["messaging.batch.message_count"]) for batch in batches) == 2 + len(MALFORMED)
    assert sum(int(attributes(batch)["deviceops.applied"]) for batch in batches) == 2 + len(MALFORMED)
    assert batches[0].kind == batches[0].SPAN_KIND_CONSUMER
    assert collector.services == {"deviceops"}
    for batch in batches:
        inner = [span for span in collector.spans if span.trace_id == batch.trace_id and span is not batch]
        assert {span.name for span in inner} == set(PARTS)
    logged = {entry.get("trace_id") for entry in map(json.loads, done.stderr.splitlines())} - {None}
    assert logged == {batch.trace_id.hex() for batch in batches}, "so that a line of the log leads to its trace"


async def test_what_is_published_with_traces_is_linked_to_and_a_trace_that_it_has_is_kept(
    deviceops_on_broker: Deviceops,
) -> None:
    own = {"type": "device-operation.report", "headers": {"traceparent": TRACEPARENT}, "body": report()}
    lines = "".join(f"{json.dumps(line)}\n" for line in (report(), report(), own))
    with collecting() as collector:
        deviceops = traced(deviceops_on_broker, collector.url, OTEL_SERVICE_NAME="mine")
        deviceops_on_broker.out("run", "--until-idle", "0.1")
        deviceops.out("publish", "-", lines=lines)
        deviceops.out("run", "--until-idle", "0.5", "--json")
    [sent] = collector.named("send ")
    assert sent.kind == sent.SPAN_KIND_PRODUCER
    assert attributes(sent)["messaging.batch.message_count"] == 3
    links = [link for batch in collector.named("process ") for link in batch.links]
    assert {(link.trace_id, link.span_id) for link in links} == {
        (sent.trace_id, sent.span_id),
        (bytes.fromhex(TRACE), bytes.fromhex(SPAN)),
    }
    assert collector.services == {"mine"}


@pytest.mark.parametrize("how", ["refuses", "never answers"])
async def test_a_collector_that_is_away_costs_one_line_and_no_report_and_no_time_beyond_the_time_to_drain(
    deviceops_on_broker: Deviceops, channel: AbstractChannel, how: str
) -> None:
    exchange = await declared(deviceops_on_broker, channel)
    with socket.create_server(("127.0.0.1", free_port())) as silent:
        port = silent.getsockname()[1]
        if how == "refuses":
            silent.close()
        url, seconds = f"http://127.0.0.1:{port}", 2
        deviceops = traced(deviceops_on_broker, url, OTEL_EXPORTER_OTLP_TIMEOUT="20", OTEL_BSP_MAX_QUEUE_SIZE="8")
        deviceops = deviceops.with_settings(drain_timeout=str(seconds), batch_size="2", probe_port="0")
        with deviceops.with_environment(OTEL_BSP_MAX_EXPORT_BATCH_SIZE="4").running("run", "--json") as worker:
            for _ in range(30):
                await send(exchange, report(), headers={"traceparent": TRACEPARENT})
            await asyncio.to_thread(eventually, lambda: operations_in(deviceops) == 30)
            told_to_stop = time.monotonic()
            worker.terminate()
            out, log = await asyncio.to_thread(worker.communicate, timeout=PATIENCE)
            took = time.monotonic() - told_to_stop
    assert worker.returncode == 0, log
    assert json.loads(out)["applied"] == 30
    assert took < seconds + 1, "a second for the machine"
    entries = [json.loads(line) for line in log.splitlines()]
    assert [entry["level"] for entry in entries if "trace export" in entry["event"]] == ["warning"], log
    assert not any("exception" in entry for entry in entries)


async def test_once_the_collector_is_back_the_log_says_so_and_traces_go_on(
    deviceops_on_broker: Deviceops, channel: AbstractChannel
) -> None:
    exchange = await declared(deviceops_on_broker, channel)
    port = free_port()
    deviceops = traced(deviceops_on_broker, f"http://127.0.0.1:{port}").with_settings(probe_port="0")
    with deviceops.running("run") as worker:
        await send(exchange, report())
        await asyncio.to_thread(until_logged, worker, "trace export failed")
        with collecting(port) as collector:
            line = await asyncio.to_thread(until_logged, worker, "trace export resumed")
            assert json.loads(line)["level"] == "info"
            worker.terminate()
            assert await asyncio.to_thread(worker.wait, PATIENCE) == 0
        assert collector.named("process ")


def test_without_traces_nothing_of_opentelemetry_is_imported(deviceops_on_broker: Deviceops) -> None:
    counting = deviceops_on_broker.with_environment(PYTHONPROFILEIMPORTTIME="1")
    for command in (("run", "--until-idle", "0.2"), ("publish", "-"), ("ingest", "-")):
        done = counting(*command, lines=json.dumps(report()))
        assert done.returncode == 0
        assert "worker.cli" in done.stderr
        assert re.findall(r"opentelemetry[.\w]*|worker\.tracing\.\w+", done.stderr) == [], command


@pytest.mark.parametrize(
    "environment",
    [
        {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "", "OTEL_SERVICE_NAME": "mine"},
    ],
)
def test_traces_are_off_where_the_standard_variables_say_so(
    deviceops_on_broker: Deviceops, environment: dict[str, str]
) -> None:
    off = deviceops_on_broker.with_environment(PYTHONPROFILEIMPORTTIME="1", **environment)
    off.out("run", "--until-idle", "0.1")
    done = off("publish", "-", lines=json.dumps(report()))
    assert done.returncode == 0
    assert "opentelemetry" not in done.stderr


def test_traces_that_cannot_be_had_are_a_clear_error(deviceops_on_broker: Deviceops, tmp_path: Path) -> None:
    for variable, value in (("OTEL_TRACES_EXPORTER", "zipkin"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")):
        url = "http://127.0.0.1:1"
        asking = deviceops_on_broker.with_environment(**{"OTEL_EXPORTER_OTLP_ENDPOINT": url, variable: value})
        refused = asking("run", "--until-idle", "0.2")
        assert refused.returncode == 2
        assert refused.stderr.splitlines()[-1].startswith(f"deviceops: {variable}: ")
    # As where the extra is not installed: Python reads this file first of all.
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['opentelemetry.sdk'] = None\n")
    without = traced(deviceops_on_broker, "http://127.0.0.1:1").with_environment(PYTHONPATH=str(tmp_path))
    for command in (("run", "--until-idle", "0.2"), ("publish", "-")):
        refused = without(*command, lines=json.dumps(report()))
        assert refused.returncode == 2
        assert refused.stderr.splitlines()[-1] == (
            "deviceops: OTEL_EXPORTER_OTLP_ENDPOINT: tracing is not installed: pip install 'deviceops[tracing]'"
        )
