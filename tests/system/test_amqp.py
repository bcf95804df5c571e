"""Through a real RabbitMQ: what is consumed, when it is acknowledged, and what becomes of the rest."""

import asyncio
import json
import signal
import time
from collections.abc import Callable, Sequence
from uuid import uuid4

import asyncpg
import pytest
import yarl
from aio_pika.abc import AbstractChannel
from pamqp.common import FieldTable

from tests.support.brokering import PATIENCE, declared, eventually, messages_in, report, send, until_logged
from tests.support.command import Deviceops
from tests.support.proxy import proxy_to
from worker.amqp.consumer import Consumer
from worker.amqp.topology import Topology
from worker.config.settings import Settings
from worker.model.messages import Message

pytestmark = pytest.mark.each_broker(full=True)


@pytest.fixture
def deviceops(deviceops_on_broker: Deviceops) -> Deviceops:
    """The laws are tested on both databases; these tests are about the broker, to which it makes no difference."""
    return deviceops_on_broker


async def test_what_is_published_is_processed_once_and_the_queue_ends_empty(
    deviceops: Deviceops, channel: AbstractChannel
) -> None:
    lines = deviceops.out(
        "simulate", "--devices", "100", "--disorder", "0.3", "--early", "0.2", "--duplicates", "0.1"
    )
    await declared(deviceops, channel)
    deviceops.out("publish", "-", lines=lines)

    summary = deviceops.document("run", "--until-idle", "1")

    assert summary["received"] == len(lines.splitlines())
    assert summary["announced"] == 1
    assert summary["duplicate"] > 0
    assert deviceops.document("recount") == {"operations": 1, "drifted": []}
    assert await messages_in(channel, f"{deviceops.settings['topology_prefix']}.reports") == 0
    deviceops.out("publish", "-", lines=lines)
    again = deviceops.document("run", "--until-idle", "1")
    assert again["duplicate"] == again["received"] - 1


async def test_a_lone_report_does_not_wait_for_its_batch_to_fill(
    deviceops: Deviceops, channel: AbstractChannel
) -> None:
    patient = deviceops.with_settings(batch_wait="60000")
    exchange = await declared(patient, channel)
    with patient.start("run") as worker:
        await send(exchange, report())
        eventually(lambda: patient.document("status"))
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(PATIENCE) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_under_load_commits_and_acknowledges_and_leaves_the_rest_in_the_queue(
    deviceops: Deviceops, channel: AbstractChannel, number: signal.Signals
) -> None:
    deviceops = deviceops.with_settings(batch_size="50")
    lines = deviceops.out("simulate", "--devices", "1500")
    await declared(deviceops, channel)
    deviceops.out("publish", "-", lines=lines)
    with deviceops.start("run", "--json") as worker:
        eventually(lambda: deviceops.document("status"))
        worker.send_signal(number)
        out, err = worker.communicate(timeout=PATIENCE)
    assert worker.returncode == 0, err
    summary = json.loads(out)
    queue = f"{deviceops.settings['topology_prefix']}.reports"
    left = await messages_in(channel, queue)
    assert left > 0, "the worker was done before it was stopped: make the load larger"
    assert summary["received"] + left == len(lines.splitlines())
    rest = deviceops.document("run", "--until-idle", "1")
    assert (rest["received"], rest["duplicate"]) == (left, 0)


async def test_a_message_is_acknowledged_after_the_commit_and_a_killed_worker_loses_nothing(
    new_postgresql_database: Callable[[], str], deviceops: Deviceops, channel: AbstractChannel
) -> None:
    url = new_postgresql_database()
    deviceops = deviceops.with_settings(database_url=url)
    exchange = await declared(deviceops, channel)
    holder = await asyncpg.connect(url.replace("+asyncpg", ""))
    blocking = holder.transaction()
    await blocking.start()
    await holder.execute("LOCK TABLE operations IN EXCLUSIVE MODE")
    await send(exchange, report(), report())
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'operations'::regclass"
    with deviceops.start("run") as worker:
        deadline = time.monotonic() + PATIENCE
        while not await holder.fetchval(waiting):  # the worker is in its transaction
            assert time.monotonic() < deadline
        worker.kill()
    await blocking.rollback()
    await holder.close()

    summary = deviceops.document("run", "--until-idle", "2")

    assert (summary["received"], summary["applied"]) == (2, 2)


async def test_messages_are_told_apart_by_their_type_property(
    deviceops: Deviceops, channel: AbstractChannel
) -> None:
    exchange = await declared(deviceops, channel)
    operation, devices = str(uuid4()), [str(uuid4()) for _ in range(3)]
    bulk = {"reports": [report("SUCCESS", device, operation) for device in devices]}
    await send(exchange, bulk, type="device-operation.reports", message_id="bulk")
    announcement = {"id": operation, "operation_type": "CONVERGE", "device_ids": devices}
    await send(exchange, announcement, type="operation.announced", message_id="announced")
    await send(exchange, {}, type="something-else")

    summary = deviceops.document("run", "--until-idle", "1")

    assert (summary["announced"], summary["released"], summary["applied"]) == (1, 3, 3)
    [unknown] = deviceops.document("dead-letters", "list")
    assert "'something-else' is not a message type" in unknown["detail"]
    assert deviceops.document("status", operation)["state"] == "COMPLETED"


async def test_a_dead_letter_keeps_body_properties_headers_and_origin(
    deviceops: Deviceops, channel: AbstractChannel
) -> None:
    exchange = await declared(deviceops, channel)
    body = b"\xff\x00 not JSON"
    await send(
        exchange, body, message_id="m-1", headers={"trace": "t-1", "raw": bytearray(b"\xff")}, correlation_id="c-1"
    )
    await send(exchange, body, message_id="m-1")

    summary = deviceops.document("run", "--until-idle", "1")

    assert (summary["dead_lettered"], summary["duplicate"]) == ({"malformed": 1}, 1)
    [letter] = deviceops.document("dead-letters", "list")
    shown = deviceops.out("dead-letters", "show", str(letter["id"]))
    for kept in ("m-1", "t-1", "c-1", exchange.name, "any.key", r"\xff\x00 not JSON"):
        assert kept in shown


async def test_a_queue_with_other_arguments_is_a_clear_error_that_says_what_differs(
    deviceops: Deviceops, channel: AbstractChannel
) -> None:
    queue = f"{deviceops.settings['topology_prefix']}.reports"
    arguments: FieldTable = {
        "x-queue-type": "quorum",
        "x-delivery-limit": 3,
        "x-dead-letter-exchange": f"{deviceops.settings['topology_prefix']}.dead-letters",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    await channel.declare_queue(queue, durable=True, arguments=arguments)

    for command in (("run",), ("check",)):
        refused = deviceops(*command)
        assert refused.returncode == 1
        difference = "x-delivery-limit is 3, deviceops needs 100"
        assert f"queue {queue} exists with other arguments: {difference}" in refused.stderr


async def test_a_queue_deleted_under_the_worker_is_declared_and_consumed_again(
    deviceops: Deviceops, channel: AbstractChannel
) -> None:
    exchange = await declared(deviceops, channel)
    queue = f"{deviceops.settings['topology_prefix']}.reports"
    with deviceops.start("run") as worker:
        until_logged(worker, "consuming")
        await channel.queue_delete(queue)
        until_logged(worker, "broker connection lost")
        until_logged(worker, "consuming")
        await send(exchange, report())
        eventually(lambda: deviceops.document("status"))
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(PATIENCE) == 0


async def test_a_worker_that_stood_still_is_not_idle_before_it_has_what_came_meanwhile(
    deviceops: Deviceops, channel: AbstractChannel
) -> None:
    idle = 1.0
    exchange = await declared(deviceops, channel)
    with deviceops.start("run", "--until-idle", str(idle), "--json") as worker:
        until_logged(worker, "consuming")
        worker.send_signal(signal.SIGSTOP)
        await send(exchange, *(report() for _ in range(100)))
        await asyncio.sleep(2 * idle)
        worker.send_signal(signal.SIGCONT)
        out, err = await asyncio.to_thread(worker.communicate, timeout=PATIENCE)

    assert worker.returncode == 0, err
    assert json.loads(out)["received"] == 100


async def test_check_says_how_the_broker_stands_and_creates_nothing(
    deviceops: Deviceops, channel: AbstractChannel
) -> None:
    queue = f"{deviceops.settings['topology_prefix']}.reports"

    assert f"queue {queue}: not declared yet" in deviceops.out("check")
    assert f"queue {queue}: not declared yet" in deviceops.out("check")
    await declared(deviceops, channel)
    assert f"queue {queue}: ready, 0 messages wait" in deviceops.out("check")


def test_the_demo_runs_through_the_broker(deviceops: Deviceops) -> None:
    shown = deviceops.out("demo", "--devices", "40")

    assert "Through RabbitMQ" in shown
    assert "all counters of 1 operation agree" in shown


async def test_a_connection_cut_between_commit_and_acknowledgement_is_made_again(
    amqp_url: str, topology_prefix: str, channel: AbstractChannel
) -> None:
    exchange = await Topology(topology_prefix).declare(channel)
    await send(exchange, report(), report())
    broker = yarl.URL(amqp_url)
    batches: list[int] = []
    stop = asyncio.Event()
    async with proxy_to(str(broker.host), broker.port or 5672) as proxy:

        async def process(messages: Sequence[Message]) -> None:
            batches.append(len(messages))
            if sum(batches) == 2:
                proxy.cut()
                await asyncio.sleep(0.1)  # the loss is noticed while this batch is still at work
            elif sum(batches) == 4:
                stop.set()

        url = str(broker.with_host("127.0.0.1").with_port(proxy.port))
        settings = Settings(amqp_url=url, topology_prefix=topology_prefix)
        async with asyncio.timeout(PATIENCE):
            await Consumer(settings, process, stop).run()
    assert sum(batches) == 4, "both came again"
    assert await messages_in(channel, f"{topology_prefix}.reports") == 0


async def test_check_waits_for_no_broker_that_answers_no_more(deviceops: Deviceops, amqp_url: str) -> None:
    broker = yarl.URL(amqp_url)
    async with proxy_to(str(broker.host), broker.port or 5672) as proxy:
        url = str(broker.with_host("127.0.0.1").with_port(proxy.port).with_query(timeout=2))
        proxy.lose_the_answer_to(b".reports")
        checked = await asyncio.to_thread(deviceops.with_settings(amqp_url=url), "check")
    assert checked.returncode == 1
    assert f"127.0.0.1:{proxy.port}/?timeout=2: does not answer" in checked.stderr


def test_a_topology_that_may_not_be_declared_is_one_clear_line(deviceops: Deviceops) -> None:
    refused = deviceops.with_settings(topology_prefix="amq.reserved")("run")

    assert refused.returncode == 1
    [line] = [line for line in refused.stderr.splitlines() if line.startswith("deviceops: ")]
    assert "the broker refuses to declare amq.reserved" in line
    assert "Traceback" not in refused.stderr


def test_publish_names_the_message_that_amqp_cannot_carry(deviceops: Deviceops) -> None:
    line = json.dumps({"type": "t" * 300, "body": {"a": 1}})
    deviceops.out("run", "--until-idle", "0.1")

    refused = deviceops("publish", "-", "--unchecked", lines=line + "\n")

    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1
    assert "AMQP cannot carry its properties or headers" in refused.stderr
