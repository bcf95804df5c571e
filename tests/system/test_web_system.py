"""The system page and the audit log: what they show is what the database and the broker have."""

import asyncio
import json
import re
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from html import unescape
from threading import Thread
from uuid import UUID

import pytest
from aio_pika.abc import AbstractChannel
from sqlalchemy import insert, make_url, update

from tests.support.brokering import declared, eventually, send
from tests.support.command import Deviceops
from tests.support.paging import Visitor, signed_in, text_of
from tests.support.sending import announcement_body, report_body
from tests.support.serving import SCOPES, Server, serving, token
from tests.support.watching import running
from worker.store import audit, schema, system_overview
from worker.store.database import Database
from worker.store.tables import operations, webhooks, workers

DEVICE, OPERATION = UUID(int=0xD1), UUID(int=0x0A)
HOSTILE = "<script>alert(1)</script>\"'{{7*7}}\u202e"
NONE = "\N{EN DASH}"
FAST = 2.5
"""Seconds that the page may take on a busy machine, whatever the broker does; it waits half a second for it."""


def ingest(deviceops: Deviceops, *lines: object) -> None:
    deviceops.out("ingest", "-", lines="".join(f"{json.dumps(line)}\n" for line in lines))


def announced(operation: UUID = OPERATION, **more: object) -> dict[str, object]:
    return {"type": "operation.announced", "body": announcement_body(operation, [DEVICE], **more)}


def facts_in(html: str) -> dict[str, str]:
    """The facts of all panels, by name."""
    pairs = re.findall(r"<dt>(.*?)</dt>\s*<dd>(.*?)</dd>", html, flags=re.DOTALL)
    plain = [[" ".join(unescape(re.sub(r"<[^>]*>", " ", each)).split()) for each in pair] for pair in pairs]
    return {name: value for name, value in plain}  # noqa: C416  # pairs are lists


def facts_of(visitor: Visitor) -> dict[str, str]:
    return facts_in(visitor.get("/system/facts").text)


def unreachable(visitor: Visitor) -> str:
    """What is said of a broker that cannot be reached; empty before it is."""
    text = text_of(visitor.get("/system/queues"))
    return text if "unreachable" in text else ""


def facts_with(name: str, visitor: Visitor) -> dict[str, str]:
    """The facts, empty as long as they lack one."""
    found = facts_of(visitor)
    return found if name in found else {}


async def test_the_numbers_are_those_of_the_database(deviceops: Deviceops) -> None:
    ingest(
        deviceops,
        announced(),
        report_body(OPERATION, DEVICE, "SUCCESS"),
        report_body(OPERATION, DEVICE, "FAILURE"),  # a conflict
        *(report_body(UUID(int=number), DEVICE, "SUCCESS") for number in (1, 1, 2)),  # parked: two of one id
        {"state": "?"},
    )
    deviceops.out("recount")
    database = Database(make_url(deviceops.settings["database_url"]))
    try:
        with serving(deviceops) as server, signed_in(server) as visitor:
            visitor.get("/system")  # begins to count
            found = eventually(lambda: facts_with("Open", visitor))
            async with database.read() as connection:
                log = await system_overview.log(connection, "device-operations")
                waiting = await system_overview.waiting(connection, "device-operations", datetime.now(UTC))
                size = await system_overview.size(connection)
            assert found["Open"] == f"{sum(waiting.open.values())}" == "4"
            assert {
                reason: found.get(reason.replace("_", " ")) for reason, number in waiting.open.items() if number
            } == {
                "malformed": "1",
                "conflict": "1",
                "unknown_device_operation": "2",
            }
            assert found["Parked"].startswith("2 reports of 2 operations, the oldest since")
            assert found["Schema"] == f"{schema.HEAD} current"
            # On PostgreSQL no process has numbered the changes yet.
            kept = f"{log.extent.first} to {log.extent.last}" if database.is_sqlite else "empty"
            assert found["Log"] == kept
            assert found["Not published yet"].split()[0] == str(waiting.unpublished.number)
            assert waiting.unpublished.number > 0
            assert found["Published"] == "never yet"
            assert log.recount is not None
            assert found["Last recount"] == f"{log.recount.at:%Y-%m-%d %H:%M:%S} UTC"
            assert found["Drifted"] == "none"
            assert found["Over, and not timed out yet"] == "0"
            assert found["Next timeout"] == "none is set"
            kind = "SQLite" if database.is_sqlite else "PostgreSQL"
            assert eventually(lambda: facts_of(visitor)["Server"].startswith(kind))
            assert re.fullmatch(r"[\d.]+ [kM]B", facts_of(visitor)["Size"])
            assert size > 10_000
            assert re.fullmatch(r"[\d.,]+ ms", found["Answers in"])
            assert found["Changes recorded"] == "operations"

            async with database.write() as connection:
                await connection.execute(update(operations).values(success_device_count=7))
            deviceops("recount")
            assert eventually(lambda: facts_of(visitor)["Drifted"].startswith("1 operation"))
    finally:
        await database.close()


async def test_parked_reports_that_are_stale_and_timeouts_that_are_due_stand_out(deviceops: Deviceops) -> None:
    ingest(deviceops, announced(timeouts={"total": 0.001}), report_body(UUID(int=1), DEVICE, "SUCCESS"))
    await asyncio.sleep(0.1)
    with serving(deviceops.with_settings(stale_after="0.01")) as server, signed_in(server) as visitor:
        visitor.get("/system")
        found = eventually(lambda: facts_with("Parked", visitor))
        assert "1 for longer than 0 s" in found["Parked"]
        assert found["Over, and not timed out yet"].startswith("1 device operation, since")


async def test_webhooks_show_how_they_do(deviceops: Deviceops) -> None:
    database = Database(make_url(deviceops.settings["database_url"]))
    nothing = {"types": "", "position": 0, "seen_at": 0}
    rows = [
        {**nothing, "name": "fails", "failures": 3, "failed_at": 1_000, "failure": HOSTILE, "given_up": 4},
        {**nothing, "name": "off", "failures": 1, "off_at": 1_000, "dropped": 5},
        {**nothing, "name": "well", "succeeded_at": 86_400_000},
    ]
    setting = json.dumps({"new": {"url": "https://example.com/hooks", "secret": f"whsec_{'A' * 44}"}})
    try:
        async with database.write() as connection:
            for row in rows:
                await connection.execute(insert(webhooks).values(row))
        with serving(deviceops.with_settings(webhooks=setting)) as server, signed_in(server) as visitor:
            page = visitor.get("/system")
            counted = f"fails failing 3 failures in a row 0 {NONE}"
            assert eventually(lambda: counted in text_of(visitor.get("/system/facts")))
            text = text_of(visitor.get("/system/facts")).partition(" Webhook State Owed ")[2]
        assert f"fails failing 3 failures in a row 0 {NONE} none 1970-01-01 00:00:01 UTC" in text
        assert "off off 1 failure in a row" in text
        assert f"well on 0 {NONE} 1970-01-02 00:00:00 UTC none" in text
        assert "new new: no worker has it yet" in text
        assert "<script>alert" not in page.text
        assert "whsec_" not in page.text
    finally:
        await database.close()


async def test_queues_and_workers_are_those_that_there_are(
    deviceops_on_broker: Deviceops, channel: AbstractChannel, topology_prefix: str
) -> None:
    exchange = await declared(deviceops_on_broker, channel)
    await send(exchange, *({"state": "?", "number": number} for number in range(7)))
    with serving(deviceops_on_broker) as server, signed_in(server) as visitor:

        def queue() -> str:
            html = visitor.get("/system/queues").text
            row = re.search(rf"<tr(?:(?!</tr>).)*{topology_prefix}\.reports.*?</tr>", html, flags=re.DOTALL)
            return "" if row is None else " ".join(unescape(re.sub(r"<[^>]*>", " ", row[0])).split())

        visitor.get("/system")
        assert await asyncio.to_thread(
            eventually, lambda: queue().startswith(f"{topology_prefix}.reports nothing consumes it 7")
        )
        assert "RabbitMQ " in text_of(visitor.get("/system"))
        assert "No worker was seen in the last minute" in text_of(visitor.get("/system"))

        # Workers say how far they have come while something may be timed out.
        ingest(deviceops_on_broker, announced(timeouts={"total": 1}))
        with running(deviceops_on_broker):
            assert await asyncio.to_thread(
                eventually, lambda: re.fullmatch(rf"{topology_prefix}\.reports 0 .* 1 nothing waits", queue())
            )

            def worker() -> bool:
                text = text_of(visitor.get("/system/facts"))
                pattern = rf"Queues [0-9a-f-]{{36}} just now {NONE} {topology_prefix}\.reports"
                return re.search(pattern, text) is not None

            assert await asyncio.to_thread(eventually, worker)
        none = "No worker was seen in the last minute"  # it has taken its announcement back
        assert await asyncio.to_thread(eventually, lambda: none in text_of(visitor.get("/system/facts")))


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port at which something accepts connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        held: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    held.append(listener.accept()[0])
                except OSError:
                    return

        Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        for each in held:
            each.close()


def test_a_broker_that_is_away_or_silent_holds_nothing_up(
    deviceops_on_sqlite: Deviceops, silent_port: int
) -> None:
    silent = deviceops_on_sqlite.with_settings(amqp_url=f"amqp://guest:secret@127.0.0.1:{silent_port}/")
    for deviceops, words in (
        (silent, "the broker does not answer within 3 s"),
        (silent.with_settings(amqp_url="amqp://guest:secret@127.0.0.1:1/"), "Connection refused"),
    ):
        with serving(deviceops) as server, signed_in(server) as visitor:
            visitor.get("/")  # templates
            began = time.monotonic()
            assert visitor.get("/system").status_code == 200
            assert time.monotonic() - began < FAST
            found = eventually(partial(unreachable, visitor))
            assert words in found
            assert "secret" not in found
            began = time.monotonic()
            visitor.get("/system/queues")
            assert time.monotonic() - began < FAST
            began = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - began < 10


def test_acts_are_for_those_who_may_act_on_dead_letters(deviceops: Deviceops) -> None:
    tokens, setting = {}, ""
    readers = tuple(scope for scope in SCOPES if scope != "admin:dead-letters")
    for name, scopes in (("all", SCOPES), ("reader", readers), ("devices", ("read:device",))):
        tokens[name], setting = token(deviceops.with_settings(api_tokens=setting), name, scopes)
    with serving(deviceops.with_settings(api_tokens=setting)) as server:
        with signed_in(server, tokens["reader"]) as visitor:
            page = visitor.get("/system")
            assert page.status_code == 200
            assert "acts" not in text_of(page).lower()
            assert 'href="/dead-letters"' not in page.text
            assert {visitor.get(path).status_code for path in ("/system/acts", "/system/audit")} == {403}
        with signed_in(server, tokens["devices"]) as visitor:
            assert {visitor.get(f"/system{part}").status_code for part in ("", "/facts", "/queues")} == {403}
        with signed_in(server, tokens["all"]) as visitor:
            text = text_of(visitor.get("/system"))
            assert (
                text.index("all sign-in all")
                < text.index("devices sign-in devices")
                < text.index("reader sign-in reader")
            )
        with Visitor(server) as visitor:
            assert visitor.get("/system").headers["Location"] == "/sign-in?next=%2Fsystem"


async def test_the_audit_log_has_pages_and_every_act_once(server: Server, deviceops_at_server: Deviceops) -> None:
    database = Database(make_url(deviceops_at_server.settings["database_url"]))
    try:
        async with database.write() as connection:
            for number in range(104):
                await audit.add(
                    connection, "night shift", f"{number:032}", "dead-letters.replay", f"t{number}", {}
                )
            await audit.add(
                connection, HOSTILE, HOSTILE, f"operation.{HOSTILE}", str(OPERATION), {"reason": HOSTILE * 100}
            )
            await audit.add(
                connection, "night shift", "0" * 32, "operation.cancel", str(OPERATION), {"cancelled": 12}
            )
            entries = await audit.latest(connection, 1_000)
    finally:
        await database.close()
    with signed_in(server) as visitor:
        found: list[str] = []
        address = "/system/audit"
        while address:
            page = visitor.get(address)
            assert page.status_code == 200
            found += re.findall(r'data-label="Target">(?:<a [^>]*>)?<bdi[^>]*>([^<]*)<', page.text)
            following = re.search(r'<a href="([^"]+)" rel="next"', page.text)
            address = "" if following is None else unescape(following[1])
        assert found == ["tests", *(entry.target for entry in entries)]  # its own signing in is the latest
        assert len(found) == 107

        filtered = visitor.get(f"/system/audit?target={OPERATION}")
        assert filtered.text.count(f'href="/operations/{OPERATION}"') == 2
        assert '{"cancelled": 12}' in text_of(filtered)
        assert "<script>alert" not in filtered.text
        assert "\u202e" not in filtered.text
        assert len(filtered.text) < 20_000
        latest = visitor.get("/system/acts")
        assert latest.text.count("<tr role=") == 11
        assert "night shift operation.cancel" in text_of(latest)
        assert visitor.get("/system/audit?before=0").status_code == 400
        assert "No acts yet" in text_of(visitor.get("/system/audit?target=nothing"))


async def test_a_mark_of_a_worker_from_a_time_to_come_is_not_shown(deviceops_on_sqlite: Deviceops) -> None:
    database = Database(make_url(deviceops_on_sqlite.settings["database_url"]))
    try:
        with serving(deviceops_on_sqlite) as server, signed_in(server) as visitor:
            visitor.get("/system")
            async with database.write() as connection:
                at = datetime.now(UTC)
                for id_, seen_at in ((1, at + timedelta(hours=1)), (2, at), (3, at - timedelta(seconds=30))):
                    values = {"topology_prefix": "device-operations", "partitions": 2, "seen_at": seen_at}
                    await connection.execute(insert(workers).values(id=UUID(int=id_), **values))
            text = text_of(visitor.get("/system"))
        assert str(UUID(int=1)) not in text
        names = "device-operations.reports.1 , device-operations.reports.2"
        assert f"{UUID(int=2)} just now 2 {names} {UUID(int=3)} gone" in text
    finally:
        await database.close()
