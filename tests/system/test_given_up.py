"""What the broker gives up on is collected into the dead letters: once each, with its described in words."""

import asyncio
import json
import random
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Any
from uuid import uuid4

import pytest
from aio_pika.abc import AbstractChannel
from sqlalchemy import make_url

from tests.support.brokering import PATIENCE, declared, eventually, messages_in, report, send, until_logged
from tests.support.command import Deviceops
from worker.amqp.topology import DELIVERY_LIMIT

pytestmark = pytest.mark.each_broker(full=True)


async def receive(channel: AbstractChannel, queue: str, number: int) -> Sequence[Any]:
    found: list[Any] = []
    async with asyncio.timeout(30), (await channel.get_queue(queue)).iterator() as messages:
        while len(found) < number:
            found.append(await anext(messages))
    return found


async def arrived(channel: AbstractChannel, queue: str, number: int) -> None:
    async with asyncio.timeout(30):
        while await messages_in(channel, queue) < number:  # noqa: ASYNC110  # the broker sends no event
            await asyncio.sleep(0.05)


async def test_what_the_broker_gives_up_on_is_one_dead_letter_that_says_why(
    deviceops_on_broker: Deviceops, channel: AbstractChannel
) -> None:
    deviceops = deviceops_on_broker
    exchange = await declared(deviceops, channel)
    reports, dead = f"{exchange.name}.reports", f"{exchange.name}.dead-letters"
    tired, rejected = report(), report()
    await send(exchange, tired, message_id="tired", headers={"trace": "t"})
    queue = await channel.get_queue(reports)
    deliveries = 0
    while (message := await queue.get(fail=False)) or not deliveries:
        if message is not None:
            deliveries += 1
            await message.reject(requeue=True)
    assert deliveries == DELIVERY_LIMIT + 1
    await send(exchange, rejected, message_id="rejected")
    [message] = await receive(channel, reports, 1)
    await message.reject(requeue=False)
    dead_exchange = await channel.get_exchange(dead)
    await send(dead_exchange, b"nobody's", b"nobody's", message_id="direct", headers={"x-death": "mine"})
    await arrived(channel, dead, 4)

    summary = deviceops.document("run", "--until-idle", "1")

    assert (summary["dead_lettered"], summary["duplicate"]) == ({"undeliverable": 3}, 1)
    assert [await messages_in(channel, queue) for queue in (reports, dead)] == [0, 0]
    letters = {letter["message_id"]: letter for letter in deviceops.document("dead-letters", "list")}
    told = letters["tired"]["detail"]
    assert f"more than {DELIVERY_LIMIT} times, which was the queue's limit" in told or "limit allows" in told
    assert f"a consumer rejected it, in queue '{reports}' at 20" in letters["rejected"]["detail"]
    assert "published to the dead letters directly" in letters["direct"]["detail"]
    assert letters["tired"]["operation_id"] == tired["operation_id"]
    shown = deviceops.document("dead-letters", "show", str(letters["tired"]["id"]))
    assert (shown["exchange"], shown["routing_key"]) == (exchange.name, "any.key")
    assert shown["headers"]["trace"] == "t"
    replayed = deviceops.document("dead-letters", "replay", "--reason", "undeliverable")
    assert (replayed["selected"], replayed["applied"], replayed["still_dead"]) == (3, 2, {"malformed": 1})


async def test_a_worker_killed_while_it_collects_keeps_each_message_once(
    deviceops_on_broker: Deviceops, channel: AbstractChannel, request: pytest.FixtureRequest
) -> None:
    deviceops = deviceops_on_broker.with_settings(batch_size="20")
    moments = random.Random(request.node.name)  # noqa: S311  # a test's moments, not a secret
    exchange = await declared(deviceops, channel)
    dead = await channel.get_exchange(f"{exchange.name}.dead-letters")
    bodies = [report() for _ in range(1_000)]
    for start in range(0, len(bodies), 500):
        await asyncio.gather(*(send(dead, body) for body in bodies[start : start + 500]))

    with closing(sqlite3.connect(str(make_url(deviceops.settings["database_url"]).database))) as database:

        def collected() -> list[bytes]:
            return [body for (body,) in database.execute("SELECT body FROM dead_letters")]

        for _ in range(2):
            known = len(collected())
            with deviceops.start("run") as worker:
                while len(collected()) == known < len(bodies):
                    assert worker.poll() is None
                    await asyncio.sleep(0.01)
                await asyncio.sleep(moments.uniform(0, 0.1))
                worker.kill()
        deviceops.out("run", "--until-idle", "1")

        assert sorted(collected()) == sorted(json.dumps(body).encode() for body in bodies)
    letters = deviceops.document("dead-letters", "list")
    assert len(letters) == len(bodies)
    named = {letter["device_id"] for letter in letters} - {None}  # who died twice over a message does not read it
    assert named <= {body["device_id"] for body in bodies}
    assert await messages_in(channel, dead.name) == 0


async def test_dead_letters_are_collected_as_long_as_reports_are_at_work(
    deviceops_on_broker: Deviceops, channel: AbstractChannel
) -> None:
    deviceops, idle = deviceops_on_broker, 1.0
    exchange = await declared(deviceops, channel)
    dead = await channel.get_exchange(f"{exchange.name}.dead-letters")
    file = str(make_url(deviceops.settings["database_url"]).database)
    with deviceops.start("run", "--until-idle", str(idle), "--json") as worker:
        until_logged(worker, "consuming")
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            await send(exchange, report())
            await asyncio.sleep(3 * idle)
        await send(dead, report())
        out, err = await asyncio.to_thread(worker.communicate, timeout=PATIENCE)

    assert worker.returncode == 0, err
    summary = json.loads(out)
    assert (summary["applied"], summary["dead_lettered"]) == (1, {"undeliverable": 1})
    assert await messages_in(channel, dead.name) == 0


async def test_a_republished_dead_letter_is_settled_by_the_worker_that_gets_it(
    deviceops_on_broker: Deviceops, channel: AbstractChannel
) -> None:
    deviceops = deviceops_on_broker
    exchange = await declared(deviceops, channel)
    operation, device = str(uuid4()), str(uuid4())
    cured = {**report("CREATED", device, operation), "service_id": "late-hire"}
    hopeless = b'{"no": "report"}'
    strict = deviceops.with_settings(services=json.dumps({"drift-service": {}}))
    headers = {"trace": "t", "x-death": "mine", "x-delivery-count": 3, "x-first-death-queue": "q"}
    await send(
        exchange, cured, message_id="cured", headers=headers, expiration=100, correlation_id="c", app_id="a"
    )
    await send(exchange, hopeless, message_id="hopeless")
    assert strict.document("run", "--until-idle", "1")["dead_lettered"] == {"malformed": 1, "unknown_service": 1}
    spy = await channel.declare_queue(exclusive=True)
    await spy.bind(exchange, "#")

    assert deviceops.document("dead-letters", "replay", "--all", "--to-broker") == {"republished": 2}

    assert deviceops.document("dead-letters", "list") == []
    sent = {message.message_id: message for message in await receive(channel, spy.name, 2)}
    assert sent["hopeless"].body == hopeless
    message = sent["cured"]
    assert json.loads(message.body) == cured
    assert (message.routing_key, message.correlation_id, message.app_id) == ("any.key", "c", "a")
    assert message.expiration is None
    assert message.headers.pop("x-deviceops-dead-letter")
    assert message.headers == {"trace": "t", "x-deviceops-replays": 1}
    summary = deviceops.document("run", "--until-idle", "1")
    assert (summary["applied"], summary["duplicate"], summary["dead_lettered"]) == (1, 0, {"malformed": 1})
    [reopened] = deviceops.document("dead-letters", "list")
    assert (reopened["message_id"], reopened["attempts"]) == ("hopeless", 2)
    shown = deviceops.document("dead-letters", "show", str(reopened["id"]))
    assert [entry["action"] for entry in shown["history"]] == ["received", "republished", "replayed"]


async def test_republishing_that_is_killed_beside_a_worker_loses_and_doubles_nothing(
    deviceops_on_broker: Deviceops, channel: AbstractChannel, request: pytest.FixtureRequest
) -> None:
    deviceops = deviceops_on_broker
    moments = random.Random(request.node.name)  # noqa: S311  # a test's moments, not a secret
    await declared(deviceops, channel)
    operation, devices = str(uuid4()), [str(uuid4()) for _ in range(500)]
    lines = [
        report(state, device, operation) for state in ("CREATED", "INITIATED", "SUCCESS") for device in devices
    ]
    strict = deviceops.with_settings(services=json.dumps({"nobody": {}}))
    strict.out("ingest", "-", lines="\n".join(map(json.dumps, lines)))

    with deviceops.start("run") as worker:
        for _ in range(3):
            with deviceops.start("dead-letters", "replay", "--all", "--to-broker") as replay:
                await asyncio.sleep(moments.uniform(0.8, 1.6))
                replay.kill()
        deviceops.out("dead-letters", "replay", "--all", "--to-broker")
        eventually(lambda: '"COMPLETED"' in deviceops("status", operation, "--json").stdout)
        worker.terminate()
    deviceops.out("run", "--until-idle", "1")

    assert deviceops.document("dead-letters", "list") == []
    counts = deviceops.document("status", operation)["operation_stats"]["device_operation_statuses_count"]
    assert counts["success_device_count"] == counts["resolved_device_count"] == len(devices)
    assert deviceops.document("recount")["drifted"] == []
    page = deviceops.document("devices", operation, "--limit", "500")
    assert all(len(found["device_operation_activity"]) == 3 for found in page["results"])


async def test_a_report_must_come_from_the_brokers_user_that_it_names(
    deviceops_on_broker: Deviceops, channel: AbstractChannel
) -> None:
    deviceops = deviceops_on_broker.with_settings(verify_user_id="true")
    exchange = await declared(deviceops, channel)
    honest = {**report(), "service_id": "guest"}
    await send(exchange, honest, report(), user_id="guest")
    await send(exchange, {**report(), "service_id": "guest"})

    summary = deviceops.document("run", "--until-idle", "1")

    assert (summary["applied"], summary["dead_lettered"]) == (1, {"unknown_service": 2})
    details = {letter["detail"] for letter in deviceops.document("dead-letters", "list")}
    assert details == {
        "the report's service_id is 'drift-service', its user_id is 'guest'",
        "the message has no user_id, so its sender is not verified",
    }
