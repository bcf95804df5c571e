"""The ways to send a report, as the README and the page for producers show them: the broker gets all that it
has to get, and a worker finds each report; what reaches no queue is an error.
"""

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import aio_pika
import pytest
from aio_pika.abc import AbstractIncomingMessage

from tests.support.brokering import eventually
from tests.support.command import Deviceops
from tests.support.documents import attempt, block, blocks
from tests.support.services import PrivateRabbitMQ

OPERATING = "deploy/operating.md"
PRODUCERS = "deploy/producers.md"
OPERATION = "497f6eca-6276-4993-bfeb-53cbbbba6f08"


@pytest.fixture
def broker() -> Iterator[PrivateRabbitMQ]:
    """A broker with the management plugin, and the exchange as it is named in the pages."""
    with PrivateRabbitMQ(management=True) as broker:
        yield broker


def control(broker: PrivateRabbitMQ, script: str) -> str:
    """Run a block that is a call of rabbitmqctl."""
    program, *arguments = shlex.split(script.replace("\\\n", ""))
    assert program == "rabbitmqctl"
    return broker.control(*arguments)


def outcomes(broker: PrivateRabbitMQ, deviceops: Deviceops) -> Mapping[str, subprocess.CompletedProcess[str]]:
    """What each way to send comes to, with the addresses of this broker."""
    port, management = broker.url.rpartition(":")[2].strip("/"), str(broker.management_port)

    def run_python(page: str) -> subprocess.CompletedProcess[str]:
        [snippet] = blocks(page, "python")
        program = snippet.text.replace("localhost:5672", f"127.0.0.1:{port}")
        assert program != snippet.text
        command = [sys.executable, "-c", program]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    def run_shell(script: str) -> subprocess.CompletedProcess[str]:
        return attempt(script.replace("15672", management).replace("localhost", "127.0.0.1"), deviceops)

    with ThreadPoolExecutor() as threads:
        results = {
            "aio-pika": threads.submit(run_python, "README.md"),
            "pika": threads.submit(run_python, PRODUCERS),
            "rabbitmqadmin": threads.submit(run_shell, block(PRODUCERS, "rabbitmqadmin")),
            "curl": threads.submit(run_shell, block(PRODUCERS, "curl")),
        }
    return {name: result.result() for name, result in results.items()}


async def test_each_way_to_send_in_the_pages_sends_a_report_that_a_worker_finds(
    broker: PrivateRabbitMQ, deviceops_on_sqlite: Deviceops
) -> None:
    deviceops = deviceops_on_sqlite.with_settings(amqp_url=broker.url)
    async with await aio_pika.connect(broker.url) as connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange("device-operations", "topic", durable=True)

        unheard = outcomes(broker, deviceops)

        assert (unheard["aio-pika"].returncode, unheard["pika"].returncode) == (1, 1)
        assert "PublishError" in unheard["aio-pika"].stderr
        assert "UnroutableError" in unheard["pika"].stderr
        assert "NOT routed" in unheard["rabbitmqadmin"].stdout
        assert json.loads(unheard["curl"].stdout) == {"routed": False}

        deviceops.out("run", "--until-idle", "0.1")
        tap = await channel.declare_queue("tap", exclusive=True)
        await tap.bind(exchange, "#")
        sent = outcomes(broker, deviceops)

        assert all(done.returncode == 0 for done in sent.values()), sent
        assert "NOT routed" not in sent["rabbitmqadmin"].stdout
        assert json.loads(sent["curl"].stdout) == {"routed": True}
        messages: list[AbstractIncomingMessage] = [await tap.get(no_ack=True) for _ in sent]
    assert len({message.message_id for message in messages}) == len(sent) == 4
    for message in messages:
        assert (message.type, message.delivery_mode) == ("device-operation.report", 2)

    waiting = "device-operations.reports\tquorum\t4\t0\t0"  # the broker counts every five seconds
    eventually(lambda: waiting in control(broker, block(OPERATING, "queues")))
    summary = deviceops.document("run", "--until-idle", "0.5")
    assert (summary["received"], summary["applied"]) == (4, 4)
    devices = deviceops.document("devices", OPERATION)["results"]
    assert sorted(device["device_id"][-1] for device in devices) == ["1", "2", "3", "4"]

    # Beyond the limit, which a quorum queue takes roughly, producers are told so.
    control(broker, block(OPERATING, "policy").replace("20000000000", "1"))

    def both_are_refused() -> bool:
        refused = outcomes(broker, deviceops)
        return "DeliveryError" in refused["aio-pika"].stderr and "NackError" in refused["pika"].stderr

    eventually(both_are_refused)
