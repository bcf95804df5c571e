"""The page for those who listen: its listeners end with the database's states, also after what they have missed,
with the rights that it names and no others.
"""

import json
import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import aio_pika
import jsonschema_rs
import pytest
from aiormq.exceptions import AMQPError
from pamqp.common import FieldTable
from sqlalchemy import make_url

from tests.support.brokering import eventually
from tests.support.command import Deviceops, Process
from tests.support.databases import in_a_thread, read
from tests.support.documents import block, blocks
from tests.support.services import PrivateRabbitMQ
from tests.support.serving import Server, serving
from worker.asyncapi.examples import EXAMPLES
from worker.model.changes import KINDS, ChangeType
from worker.store.database import Database

PAGE = "deploy/changes.md"
PASSWORD = "for-this-test"  # noqa: S105
LISTENERS = ("listen_aio_pika.py", "listen_pika.py")


def run_commands(broker: PrivateRabbitMQ, script: str) -> None:
    """Run a block of calls of rabbitmqctl."""
    for command in re.findall(r"^rabbitmqctl (.*?)(?: +#.*)?$", script, re.MULTILINE):
        broker.control(*shlex.split(command), typed=f"{PASSWORD}\n")


@pytest.fixture(scope="module")
def broker() -> Iterator[PrivateRabbitMQ]:
    """A private broker with the users of the pages."""
    with PrivateRabbitMQ() as server:
        run_commands(server, block("deploy/security.md", "broker-users"))
        run_commands(server, block(PAGE, "listener-user"))
        run_commands(server, block(PAGE, "listener-keys"))
        yield server


@pytest.fixture
def deviceops(broker: PrivateRabbitMQ, deviceops_on_sqlite: Deviceops) -> Deviceops:
    """The command as the worker's user, which tells everything."""
    return deviceops_on_sqlite.with_settings(amqp_url=url_of(broker, "deviceops"), changes="all")


def url_of(broker: PrivateRabbitMQ, user: str) -> str:
    return broker.url.replace("guest:guest", f"{user}:{PASSWORD}")


@contextmanager
def listening(server: Server, program: Path) -> Iterator[Process]:
    """A listener of the page, until the end of the block."""
    with Process(
        [sys.executable, program.name],
        cwd=program.parent,
        env={"TOKEN": server.token, "PATH": ""},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        assert process.poll() is None, process.stderr and process.stderr.read()
        process.terminate()


def states(deviceops: Deviceops) -> Mapping[tuple[str, str], str]:
    """The state of each device of each operation."""

    async def stored() -> Mapping[tuple[str, str], str]:
        database = Database(make_url(deviceops.settings["database_url"]))
        try:
            found = await read(database)
        finally:
            await database.close()
        return {
            (str(id_), str(device)): each.state
            for id_, operation in found.operations.items()
            for device, each in operation.devices.items()
        }

    return in_a_thread(stored())


def listed(file: Path) -> Mapping[tuple[str, str], str]:
    """The same as a listener has it."""
    with closing(sqlite3.connect(file)) as database:
        rows = database.execute("SELECT operation, device, state FROM devices")
        return {(operation, device): state for operation, device, state in rows}


def test_each_listener_of_the_page_ends_with_the_states_of_the_database(
    broker: PrivateRabbitMQ, deviceops: Deviceops
) -> None:
    lines = deviceops.out("simulate", "--operations=2", "--devices=40", "--disorder=0.3").splitlines(True)
    third = len(lines) // 3

    def process(portion: list[str]) -> None:
        deviceops.out("publish", "-", lines="".join(portion))
        deviceops.out("run", "--until-idle", "0.3")

    deviceops.out("run", "--until-idle", "0.1")
    process(lines[:third])  # which no listener gets, since no queue is bound
    file = deviceops.directory / "device-states.db"
    with serving(deviceops) as server:
        for snippet in blocks(PAGE, "python"):
            text = snippet.text.replace("amqp://guest:guest@localhost:5672/", url_of(broker, "device-states"))
            (deviceops.directory / snippet.name).write_text(text.replace("http://localhost:8080", server.url))
        for number, name in enumerate(LISTENERS, 1):
            with listening(server, deviceops.directory / name):
                eventually(lambda: "device-states" in broker.control("list_queues", "name"))
                eventually(lambda: "device-states" in broker.control("list_bindings"))
                process(lines[number * third :][: third + len(lines) % 3])
                expected = states(deviceops)
                eventually(lambda: file.exists() and listed(file) == expected)  # noqa: B023
    assert len(expected) == 80
    assert set(expected.values()) - {"CREATED"}


async def test_what_is_published_is_what_the_contract_says(broker: PrivateRabbitMQ, deviceops: Deviceops) -> None:
    deviceops.out("run", "--until-idle", "0.1")
    contract = json.loads(deviceops.out("contract"))
    kinds = {
        shown["bindings"]["amqp"]["messageType"]: shown
        for channel in contract["channels"].values()
        if channel["bindings"]["amqp"].get("exchange", {}).get("name") == "device-operations.changes"
        for reference in channel["messages"].values()
        for shown in [contract["components"]["messages"][reference["$ref"].rpartition("/")[2]]]
    }
    async with await aio_pika.connect(broker.url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind("device-operations.changes", "#")
        lines = [{"type": each.type, "message_id": each.message_id, "body": each.body} for each in EXAMPLES]
        deviceops.out("publish", "-", "--unchecked", lines="".join(json.dumps(line) + "\n" for line in lines))
        deviceops.out("run", "--until-idle", "0.3")

        seen = set()
        while (message := await queue.get(fail=False, no_ack=True)) is not None:
            assert message.type is not None
            shown = kinds[message.type]
            parts = dict.fromkeys(re.findall(r"{(\w+)}", KINDS[ChangeType(message.type)].routing_key), "[^.]+")
            pattern = KINDS[ChangeType(message.type)].routing_key.replace(".", r"\.").format(**parts)
            assert message.routing_key is not None
            assert re.fullmatch(pattern, message.routing_key)
            assert message.headers["cloudEvents:id"] == message.message_id
            properties = {
                "type": message.type,
                "delivery_mode": message.delivery_mode,
                "message_id": message.message_id,
                "timestamp": message.timestamp and int(message.timestamp.timestamp()),
                "content_type": message.content_type,
            }
            for schema, document in (
                (shown["headers"], message.headers),
                (shown["x-amqp-properties"], properties),
                ({**shown["payload"], **contract}, json.loads(message.body)),
            ):
                jsonschema_rs.Draft202012Validator(schema, validate_formats=True).validate(document)
            seen.add(message.type)
    assert seen == kinds.keys() == KINDS.keys()


async def test_a_listener_has_the_rights_that_it_needs_and_no_others(
    broker: PrivateRabbitMQ, deviceops: Deviceops
) -> None:
    deviceops.out("run", "--until-idle", "0.1")
    async with await aio_pika.connect(url_of(broker, "device-states")) as connection:

        async def is_refused(attempt: str) -> bool:
            channel = await connection.channel()
            try:
                exchange = await channel.get_exchange("device-operations.changes", ensure=False)
                if attempt == "publish":
                    await exchange.publish(aio_pika.Message(b""), "device-operations.CONVERGE", timeout=5)
                elif attempt == "read reports":
                    await (await channel.get_queue("device-operations.reports", ensure=False)).get(timeout=5)
                elif attempt == "declare another queue":
                    await channel.declare_queue("another", durable=True)
                else:
                    queue = await channel.declare_queue("device-states.second", exclusive=True)
                    await queue.bind(exchange, attempt)
            except AMQPError:
                return True
            return False

        assert not await is_refused("device-operations.#")
        for attempt in ("operation.#", "#", "publish", "read reports", "declare another queue"):
            assert await is_refused(attempt), attempt


@pytest.mark.parametrize("overflow", ["reject-publish", "drop-head"])
async def test_a_full_queue_holds_up_changes_or_drops_the_oldest_as_its_arguments_say(
    broker: PrivateRabbitMQ, deviceops: Deviceops, overflow: str
) -> None:
    deviceops.out("run", "--until-idle", "0.1")
    lines = deviceops.out("simulate", "--devices=30").splitlines(True)
    arguments: FieldTable = {"x-queue-type": "quorum", "x-overflow": overflow, "x-max-length": 1}
    async with await aio_pika.connect(broker.url) as connection:
        channel = await connection.channel()
        full, other = f"full.{overflow}", f"other.{overflow}"
        for name, more in ((full, arguments), (other, {})):
            queue = await channel.declare_queue(name, durable=True, arguments=more)
            await queue.bind("device-operations.changes", "operation.#")
        logged = ""
        for number in range(5):
            deviceops.out("publish", "-", lines="".join(lines[number * 20 :][:20]))
            done = deviceops("run", "--until-idle", "0.3")
            assert done.returncode == 0
            logged += done.stderr
        refused = "a queue refuses a change" in logged
        assert refused is (overflow == "reject-publish")
        if refused:  # everything comes once there is room
            await channel.queue_delete(full)
            deviceops.out("run", "--until-idle", "7")  # the last run, which was refused, holds the cursor for 5 s
        seen = set()
        while (message := await queue.get(fail=False, no_ack=True)) is not None:
            seen.add(json.loads(message.body)["sequence"])
        assert seen == set(range(1, max(seen) + 1))
        assert max(seen) >= 5
        await channel.queue_delete(full)
        await channel.queue_delete(other)


def test_check_tries_the_worker_s_right_to_write_changes(broker: PrivateRabbitMQ, deviceops: Deviceops) -> None:
    deviceops.out("run", "--until-idle", "0.1")
    ready = "exchange device-operations.changes: ready"
    assert ready in deviceops.out("check")
    assert "changes" not in deviceops.with_settings(changes="none").out("check").partition("database ")[2]

    everything, all_but_changes = ".*", r"^device-operations(\.reports|\.dead-letters)?$"
    for rights in ((everything, all_but_changes), (all_but_changes, everything)):
        broker.control("set_permissions", "-p", "/", "deviceops", *rights, everything)
        refused = deviceops("check")
        assert (refused.returncode, ready in refused.stdout) == (1, False), rights
        assert "exchange 'device-operations.changes'" in refused.stderr
    broker.control("set_permissions", "-p", "/", "deviceops", everything, everything, everything)
    assert ready in deviceops.out("check")
