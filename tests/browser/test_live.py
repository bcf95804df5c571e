"""Pages that are open: they follow what changes, and what they show is what the database holds."""

import json
import time
from collections.abc import Sequence
from random import Random
from uuid import UUID

import pytest
from sqlalchemy import make_url

from tests.support.brokering import eventually
from tests.support.browsing.browser import Browser
from tests.support.browsing.rows import Shown
from tests.support.browsing.visitors import visiting
from tests.support.command import Deviceops
from tests.support.databases import in_a_thread
from tests.support.elapsing import elapse_at
from tests.support.sending import ANNOUNCEMENT, OPERATIONS, announcement_body, message, report_body
from tests.support.watching import running
from worker.model.messages import Message
from worker.processing.batches import process_messages
from worker.store.database import Database

DEVICES = 100
PORTION = 110
"""Messages that are published at a time."""
PAGES = 50
"""Pages that are open, the browser's included."""
COMMITS = 10
AT_MOST = 1.0
"""Seconds from a commit until it is on the screen."""


def roll_out(deviceops: Deviceops) -> tuple[UUID, Sequence[str]]:
    """A roll-out with devices that fall silent until a timeout: its operation, and its messages as lines."""
    options = ("--disorder=0.1", "--duplicates=0.05", "--conflicts=0.02", "--malformed=0.02", "--silent=0.1")
    lines = deviceops.out("simulate", f"--devices={DEVICES}", "--seed=11", *options).splitlines(keepends=True)
    announced = next(line for line in lines if "operation.announced" in line)
    envelope = json.loads(announced)
    envelope["body"]["timeouts"] = {"total": 3_600}
    lines[lines.index(announced)] = f"{json.dumps(envelope)}\n"
    return UUID(envelope["body"]["id"]), lines


def test_a_roll_out_is_watched_to_its_end_and_the_screen_agrees_with_the_database(
    watched: Browser,
    deviceops: Deviceops,
    deviceops_on_sqlite: Deviceops,
    amqp_url: str,
    topology_prefix: str,
) -> None:
    url = deviceops.settings["database_url"]
    on_broker = deviceops.with_settings(amqp_url=amqp_url, topology_prefix=topology_prefix)
    operation, lines = roll_out(deviceops)
    seen: list[Shown] = []

    def is_as_stored() -> bool:
        shown = Shown.on(watched, operation)
        if shown is not None and shown not in seen[-1:]:
            seen.append(shown)
        return shown is not None and shown == Shown.of(url, operation)

    with running(on_broker) as worker:
        eventually(worker.is_ready)
        for begin in range(0, len(lines), PORTION):
            on_broker.out("publish", "-", "--unchecked", lines="".join(lines[begin : begin + PORTION]))
            watched.until(is_as_stored, f"the screen is as the database after {begin + PORTION} messages")
        deviceops_on_sqlite.out("ingest", "-", lines="".join(lines))
        before = Shown.of(deviceops_on_sqlite.settings["database_url"], operation)
        watched.until(lambda: is_as_stored() and seen[-1] == before, f"all messages are processed: {before}")
        elapse_at(url, 2 * 3_600)
        watched.until(lambda: is_as_stored() and seen[-1].state == "COMPLETED", "the operation ends", 60)

    assert (before.state, before.total) == ("DISPATCHING", DEVICES)
    assert (seen[-1].settled, seen[-1].parts["timed-out"]) == (
        DEVICES,
        before.parts["timed-out"] + DEVICES - before.settled,
    )
    assert [shown.settled for shown in seen] == sorted(shown.settled for shown in seen)
    assert len(seen) > len(lines) / PORTION / 2, "the screen followed"
    assert watched.network.elsewhere(watched.site) == []


@pytest.mark.alone
def test_a_commit_is_on_the_screen_within_a_second_with_fifty_pages_open(
    watched: Browser, deviceops: Deviceops
) -> None:
    operation, devices = OPERATIONS[0], [UUID(int=0xD00 + number) for number in range(COMMITS)]
    commit(deviceops, message(announcement_body(operation, devices), ANNOUNCEMENT))
    cookies = {each["name"]: each["value"] for each in watched.driver.get_cookies()}
    stream = watched.until(
        lambda: next((each.url for each in watched.network.requests if each.kind == "EventSource"), None),
        "a stream",
    )
    random, took = Random(5), []  # noqa: S311  # pauses of any length
    with visiting(stream, cookies, PAGES - 1) as visitors:
        watched.until(lambda: visitors.open == PAGES - 1, f"{PAGES} pages are open")
        for number, device in enumerate(devices, start=1):
            time.sleep(random.uniform(0, 1.5))
            committed = commit(deviceops, message(report_body(operation, device, "SUCCESS")))
            watched.wait_for(f"{number} of {COMMITS}")
            took.append(time.monotonic() - committed)
        watched.until(lambda: visitors.received >= 2 * (PAGES - 1), "all pages follow")
    assert max(took) <= AT_MOST, took


def commit(deviceops: Deviceops, *messages: Message) -> float:
    """Process messages in one transaction, in another process than the server; gives when it was over."""

    async def run() -> float:
        database = Database(make_url(deviceops.settings["database_url"]), for_batches=True)
        try:
            await process_messages(database, messages)
            return time.monotonic()
        finally:
            await database.close()

    return in_a_thread(run())
