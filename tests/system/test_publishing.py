"""`publish` and `replay --to-broker` with no right but to write to the exchange, and what is said without it."""

import json
from collections.abc import Iterator

import aio_pika
import pytest
import yarl

from tests.support.brokering import report
from tests.support.command import Deviceops
from tests.support.services import PrivateRabbitMQ

USER, PASSWORD = "drift-service", "for-this-test"


@pytest.fixture(scope="module")
def broker() -> Iterator[PrivateRabbitMQ]:
    """A broker whose users may write to a worker's exchange and to two like it, by one key, or to nothing."""
    with PrivateRabbitMQ() as server:
        mine = "^(device-operations|lonely|missing)$"
        for user, write in ((USER, mine), ("stranger", "^$"), ("topical", mine)):
            server.control("add_user", user, PASSWORD)
            server.control("set_permissions", "-p", "/", user, "^$", write, "^$")
        server.control("set_topic_permissions", "-p", "/", "topical", "device-operations", "^mine$", "^$")
        yield server


@pytest.fixture
def worker(broker: PrivateRabbitMQ, deviceops_on_sqlite: Deviceops) -> Deviceops:
    """The command as who consumes, and trusts whom the broker vouches for; everything is declared."""
    worker = deviceops_on_sqlite.with_settings(amqp_url=broker.url, verify_user_id="true")
    worker.out("run", "--until-idle", "0.1")
    return worker


def as_user(deviceops: Deviceops, user: str) -> Deviceops:
    url = yarl.URL(deviceops.settings["amqp_url"]).with_user(user).with_password(PASSWORD)
    return deviceops.with_settings(amqp_url=str(url))


def test_who_may_write_to_the_exchange_alone_can_publish_and_is_vouched_for(worker: Deviceops) -> None:
    producer = as_user(worker, USER)

    assert producer.out("publish", "-", lines=json.dumps(report())) == "1 message published to device-operations\n"

    assert worker.document("run", "--until-idle", "1")["applied"] == 1


def test_who_may_write_to_the_exchange_alone_can_send_dead_letters_again(worker: Deviceops) -> None:
    registration = report()
    worker.out("ingest", "-", lines=json.dumps(registration | {"state": "SUCCESS"}))

    sent = as_user(worker, USER).document("dead-letters", "replay", "--all", "--to-broker")

    assert sent == {"republished": 1}
    as_user(worker, USER).out("publish", "-", lines=json.dumps(registration))
    summary = worker.document("run", "--until-idle", "1")
    assert (summary["received"], summary["released"], summary["applied"]) == (2, 1, 2)


async def test_what_the_broker_refuses_is_told_with_exchange_and_user(worker: Deviceops) -> None:
    async with await aio_pika.connect(worker.settings["amqp_url"]) as connection:
        channel = await connection.channel()
        await channel.declare_exchange("lonely", aio_pika.ExchangeType.TOPIC, durable=True)
    sent = report("SUCCESS")
    line = json.dumps(sent)
    worker.out("ingest", "-", lines=line)
    refusals = {
        (
            "stranger",
            "device-operations",
        ): "403, the user 'stranger' may not write to the exchange 'device-operations': ACCESS_REFUSED - ",
        (
            "topical",
            "device-operations",
        ): f"access to topic '{sent['operation_id']}' in exchange 'device-operations' in vhost '/' refused",
        (
            USER,
            "missing",
        ): "404, the user 'drift-service' finds no exchange 'missing': `deviceops run` declares it; ",
        (
            USER,
            "lonely",
        ): "312 NO_ROUTE, the user 'drift-service' may write to the exchange 'lonely', but it leads to ",
    }
    for (user, prefix), words in refusals.items():
        told = as_user(worker, user).with_settings(topology_prefix=prefix)
        for command in (["publish", "-"], ["dead-letters", "replay", "--all", "--to-broker"]):
            done = told(*command, lines=line)
            assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1), done.stderr
            assert done.stderr.startswith("deviceops: not published: ")
            assert words in done.stderr
    assert worker.document("dead-letters", "list")[0]["status"] == "open"


async def test_a_full_queue_is_told_as_such(worker: Deviceops, broker: PrivateRabbitMQ) -> None:
    broker.control("set_policy", "full", r"^device-operations\.reports$", '{"max-length": 0}')
    try:
        for _ in range(3):  # the limit holds once the first message is in the queue
            done = worker("publish", "-", lines=json.dumps(report()))
    finally:
        broker.control("clear_policy", "full")
    assert "the queue that the exchange 'device-operations' leads to refuses it: is it full?" in done.stderr
    worker.out("run", "--until-idle", "0.3")
