"""Policies of the broker that take messages out of the queues: `check` names them, and `run` warns of them."""

import asyncio
import secrets
import shlex
from collections.abc import Iterator

import aio_pika
import pytest

from tests.support.brokering import eventually, report, send, until_logged
from tests.support.command import Deviceops
from tests.support.documents import block, run
from tests.support.services import BROKERS, PrivateRabbitMQ

pytestmark = pytest.mark.each_private_broker(full=True)

PAGE = "deploy/operating.md"


@pytest.fixture(scope="module")
def broker(request: pytest.FixtureRequest) -> Iterator[PrivateRabbitMQ]:
    """A RabbitMQ with the management plugin."""
    with BROKERS[getattr(request, "param", next(iter(BROKERS)))](management=True) as server:
        yield server


@pytest.fixture
def deviceops(deviceops_on_sqlite: Deviceops, broker: PrivateRabbitMQ) -> Deviceops:
    """The command, with names of its own on the broker."""
    deviceops = deviceops_on_sqlite.with_settings(
        amqp_url=broker.url,
        management_url=f"http://guest:guest@127.0.0.1:{broker.management_port}/",
        topology_prefix=f"policies-{secrets.token_hex(4)}",
    )
    # Milliseconds until the broker tries again to route what a queue holds, from when the queue is declared on.
    broker.control("eval", "application:set_env(rabbit, dead_letter_worker_publisher_confirm_timeout, 1000).")
    deviceops.out("run", "--until-idle", "0.1", "--json")
    return deviceops


def test_a_policy_and_an_operators_policy_that_endanger_messages_are_named(
    deviceops: Deviceops, broker: PrivateRabbitMQ
) -> None:
    assert "none that takes messages out of the queues" in deviceops.out("check")
    prefix = deviceops.settings["topology_prefix"]
    try:
        broker.control("set_policy", "blanket", ".*", '{"expires": 1800000, "max-length": 9}')
        broker.control("set_operator_policy", "house", ".*", '{"message-ttl": 60000, "delivery-limit": 5}')
        refused = eventually(lambda: (done := deviceops("check")).stderr.count("operator policy") == 4 and done)
        with deviceops.running("run") as worker:
            told = until_logged(worker, "broker policy endangers messages")
    finally:
        broker.control("clear_policy", "blanket")
        broker.control("clear_operator_policy", "house")

    assert refused.returncode == 1
    for words in (
        f"policy blanket sets expires of queue {prefix}.reports to 1800000: without a consumer",
        f"operator policy house sets message-ttl of queue {prefix}.dead-letters to 60000: messages older than",
        f"operator policy house sets delivery-limit of queue {prefix}.reports to 5",
    ):
        assert words in refused.stderr
    assert "max-length" not in refused.stderr, "what is beyond it is refused"
    assert "policy blanket sets expires" in told


def test_policies_that_queues_would_have_are_named_before_they_are_declared(
    deviceops: Deviceops, broker: PrivateRabbitMQ
) -> None:
    prefix = f"undeclared-{secrets.token_hex(4)}"
    deviceops = deviceops.with_settings(topology_prefix=prefix)
    assert "none that takes messages out of the queues" in deviceops.out("check")
    try:
        broker.control("set_policy", "--priority", "1", "low", f"^{prefix}", '{"message-ttl": 9}')
        broker.control("set_policy", "--priority", "2", "high", f"^{prefix}", '{"expires": 99}')
        broker.control(
            "set_policy",
            "--priority",
            "3",
            "--apply-to",
            "exchanges",
            "other",
            ".*",
            '{"alternate-exchange": "x"}',
        )
        broker.control("set_operator_policy", "house", f"^{prefix}.*reports", '{"expires": 9}')
        done = eventually(lambda: (done := deviceops("check")).stderr.count("expires") == 2 and done)
    finally:
        for name in ("low", "high", "other"):
            broker.control("clear_policy", name)
        broker.control("clear_operator_policy", "house")
    assert done.returncode == 1
    assert f"operator policy house sets expires of queue {prefix}.reports to 9:" in done.stderr
    assert f"policy high sets expires of queue {prefix}.dead-letters to 99:" in done.stderr
    assert "message-ttl" not in done.stderr


def test_policies_that_cannot_be_read_are_said_to_be_with_the_way_to_look(
    deviceops: Deviceops, broker: PrivateRabbitMQ
) -> None:
    for url in ("http://127.0.0.1:1/", f"http://other:wrong@127.0.0.1:{broker.management_port}/"):
        done = deviceops.with_settings(management_url=url)("check")
        assert done.returncode == 0
        assert "policies could not be read from http://" in done.stderr
        assert "urlopen" not in done.stderr
        assert "rabbitmqctl list_policies" in done.stderr.replace("\n", " ")
        assert "wrong" not in done.stderr + done.stdout


def test_the_policy_of_the_page_wins_over_one_for_all_queues(
    deviceops: Deviceops, broker: PrivateRabbitMQ
) -> None:
    prefix = deviceops.settings["topology_prefix"]
    broker.control(
        "set_policy", "--priority", "9", "blanket", ".*", '{"expires": 1800000, "overflow": "drop-head"}'
    )
    eventually(lambda: deviceops("check").returncode == 1)
    [command] = block(PAGE, "policy").replace("\\\n", "").strip().splitlines()
    _, *arguments = shlex.split(command.replace("device-operations", prefix))
    broker.control(*arguments)
    try:
        told = eventually(lambda: (done := deviceops("check")).returncode == 0 and done.stdout)
        assert "none that takes messages out of the queues" in told
        listed = broker.control("list_queues", "--quiet", "name", "policy")
        assert (
            listed.count(f"{prefix}.reports\tdeviceops") == listed.count(f"{prefix}.dead-letters\tdeviceops") == 1
        )
    finally:
        broker.control("clear_policy", "blanket")
        broker.control("clear_policy", "deviceops")


async def test_what_a_policy_has_the_broker_hold_is_collected_by_the_commands_of_the_page(
    deviceops: Deviceops, broker: PrivateRabbitMQ
) -> None:
    prefix = deviceops.settings["topology_prefix"]
    broker.control("set_policy", "blanket", ".*", '{"message-ttl": 500}')
    try:
        async with await aio_pika.connect(broker.url) as connection:
            await asyncio.sleep(1)  # a policy takes a moment
            await send(await (await connection.channel()).get_exchange(prefix), report(), report())
        await asyncio.sleep(2)
    finally:
        broker.control("clear_policy", "blanket")
    assert deviceops.document("run", "--until-idle", "1")["received"] == 0

    admin = f"rabbitmqadmin --host=127.0.0.1 --port={broker.management_port}"
    commands = block(PAGE, "rescue").replace("device-operations", prefix).replace("idle 200", "idle 5")
    run(commands.replace("rabbitmqadmin", admin), deviceops)

    assert [letter["reason"] for letter in deviceops.document("dead-letters", "list")] == ["undeliverable"] * 2
