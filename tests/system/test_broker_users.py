"""The page's commands for the broker's users: a producer may publish as itself, and nothing else."""

import json
import re
import shlex
from collections.abc import Iterator

import aio_pika
import httpx
import pytest
import yarl
from aio_pika.abc import AbstractChannel
from aiormq.exceptions import AMQPError

from tests.support.brokering import report
from tests.support.command import Deviceops
from tests.support.documents import block
from tests.support.services import PrivateRabbitMQ

PASSWORD = "for-this-test"  # noqa: S105


@pytest.fixture(scope="module")
def broker() -> Iterator[PrivateRabbitMQ]:
    """A private broker with the users of the page."""
    script = block("deploy/security.md", "broker-users")
    commands = re.findall(r"^rabbitmqctl (.*?)(?: +#.*)?$", script, re.MULTILINE)
    assert len(commands) == 4
    with PrivateRabbitMQ(management=True) as server:
        for command in commands:
            server.control(*shlex.split(command), typed=f"{PASSWORD}\n")
        yield server


@pytest.fixture
def broker_url(broker: PrivateRabbitMQ) -> yarl.URL:
    """Its URL, but for the user's name."""
    return yarl.URL(broker.url).with_password(PASSWORD)


async def refused(url: yarl.URL, attempt: str) -> bool:
    """Whether the broker refuses what a producer should not do; each attempt ends its channel."""

    async def publish(exchange: str, key: str, user: str | None) -> None:
        message = aio_pika.Message(json.dumps(report()).encode(), user_id=user)
        target = await channel.get_exchange(exchange, ensure=False) if exchange else channel.default_exchange
        await target.publish(message, key, timeout=5)

    async with await aio_pika.connect(url) as connection:
        channel: AbstractChannel = await connection.channel()
        try:
            match attempt:
                case "publish as itself":
                    await publish("device-operations", "any", "drift-service")
                case "publish as another":
                    await publish("device-operations", "any", "operator-console")
                case "publish to the queue":
                    await publish("", "device-operations.reports", "drift-service")
                case "publish to the dead letters":
                    await publish("device-operations.dead-letters", "any", "drift-service")
                case "receive":
                    await (await channel.get_queue("device-operations.reports", ensure=False)).get(timeout=5)
                case "bind":
                    queue = await channel.get_queue("device-operations.reports", ensure=False)
                    await queue.bind("device-operations", "mine")
                case "declare":
                    await channel.declare_queue("mine")
                case _:
                    await channel.queue_delete("device-operations.reports")
        except AMQPError:
            return True
    return False


async def test_a_producer_may_publish_as_itself_and_nothing_else(
    broker_url: yarl.URL, deviceops_on_sqlite: Deviceops
) -> None:
    worker_url = str(broker_url.with_user("deviceops"))
    deviceops = deviceops_on_sqlite.with_settings(amqp_url=worker_url, verify_user_id="true")
    deviceops.out("run", "--until-idle", "0.2")
    producer = broker_url.with_user("drift-service")

    assert not await refused(producer, "publish as itself")
    for attempt in (
        "publish as another",
        "publish to the queue",
        "publish to the dead letters",
        "receive",
        "bind",
        "declare",
        "delete",
    ):
        assert await refused(producer, attempt), attempt

    summary = deviceops.document("run", "--until-idle", "0.5")
    assert (summary["received"], summary["applied"]) == (1, 1)
    assert "ready, 0 messages wait" in deviceops.out("check")


def test_a_producer_may_publish_through_the_management_plugin_and_read_nothing_there(
    broker: PrivateRabbitMQ, broker_url: yarl.URL, deviceops_on_sqlite: Deviceops
) -> None:
    deviceops_on_sqlite.with_settings(amqp_url=str(broker_url.with_user("deviceops"))).out(
        "run", "--until-idle", "0.2"
    )
    script = block("deploy/producers.md", "management-user")
    base = f"http://127.0.0.1:{broker.management_port}/api"
    message = {
        "routing_key": "any",
        "properties": {},
        "payload": json.dumps(report()),
        "payload_encoding": "string",
    }
    getting = {"count": 1, "ackmode": "ack_requeue_false", "encoding": "auto"}
    with httpx.Client(auth=("drift-service", PASSWORD), trust_env=False, timeout=30) as client:

        def publish(exchange: str) -> httpx.Response:
            return client.post(f"{base}/exchanges/%2F/{exchange}/publish", json=message)

        assert publish("device-operations").status_code == httpx.codes.UNAUTHORIZED
        broker.control(*shlex.split(script)[1:])
        assert publish("device-operations").json() == {"routed": True}
        assert publish("amq.default").is_client_error
        read = client.post(f"{base}/queues/%2F/device-operations.reports/get", json=getting)
        assert (read.is_client_error, "ACCESS_REFUSED" in read.text) == (True, True)
