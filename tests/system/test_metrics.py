"""The numbers for Prometheus: what they say, and that their page, alerts and dashboard speak of these alone."""

import asyncio
import json
import re
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from aio_pika.abc import AbstractChannel
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import make_url

from tests.support.brokering import delete_topology, eventually, report, send
from tests.support.command import Deviceops
from tests.support.databases import NewDatabase, SqliteFiles, in_a_thread
from tests.support.prometheus import MONITORING, promtool
from tests.support.proxy import proxy_to
from tests.support.receiving import receiving
from tests.support.serving import NOWHERE, serving
from tests.support.watching import Running, running
from worker.store.database import Database

PAGE = (MONITORING / "README.md").read_text()
JOBS = ("deviceops-worker", "deviceops-api")
ADDED_BY_PROMETHEUS = {"job", "instance", "le"}


@pytest.fixture(scope="module")
def exposed(
    _sqlite_files: SqliteFiles, amqp_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, str]]:
    """What a worker and an API that have done something of everything answer at `/metrics`, by job."""
    folder, prefix = tmp_path_factory.mktemp("exposed"), f"test-{secrets.token_hex(8)}"
    settings = {
        "database_url": _sqlite_files.create(folder),
        "amqp_url": amqp_url,
        "topology_prefix": prefix,
        "stale_after": "0.5",
        "stall_timeout": "2",
    }
    try:
        with receiving() as receiver, ExitStack() as stack:
            deviceops = Deviceops(folder, {**settings, "webhooks": receiver.setting("/ops")})
            worker = stack.enter_context(running(deviceops))
            server = stack.enter_context(serving(deviceops))
            eventually(worker.is_ready)
            lines = [json.dumps(each) for each in (report(), report("SUCCESS"))]
            deviceops.out("publish", "-", "--unchecked", lines="\n".join([*lines, "unreadable"]))
            deviceops.out("recount")
            with server.client() as client:
                client.get("/v0/operations/")
            eventually(
                lambda: {"deviceops_drifted_operations", "deviceops_stale_reports"} <= worker.metrics().keys()
            )
            eventually(lambda: worker.metrics()["deviceops_stale_reports"] == 1)
            eventually(lambda: "deviceops_webhook_owed ops" in worker.metrics())
            eventually(lambda: f"deviceops_queue_messages {prefix}.reports" in worker.metrics())
            yield {"deviceops-worker": worker.get("metrics").text, "deviceops-api": server.probe("metrics").text}
    finally:
        in_a_thread(delete_topology(amqp_url, prefix))


@pytest.fixture(scope="module")
def labels(exposed: Mapping[str, str]) -> Mapping[str, Mapping[str, set[str]]]:
    """Every series that there is by name: its labels, and the values that each has."""
    found: dict[str, dict[str, set[str]]] = {"up": {}}
    for job, text in exposed.items():
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                known = found.setdefault(sample.name, {})
                for name, value in {**sample.labels, "job": job}.items():
                    known.setdefault(name, set()).add(value)
    found["up"]["job"] = set(JOBS)
    return found


def test_promtool_has_no_objection_to_the_metrics(exposed: Mapping[str, str]) -> None:
    for text in exposed.values():
        assert promtool("check", "metrics", text=text) == ""


def test_the_page_has_every_metric_and_its_labels(
    labels: Mapping[str, Mapping[str, set[str]]], exposed: Mapping[str, str]
) -> None:
    told = {
        name: set(re.findall(r"\w+", names))
        for name, names in re.findall(r"^\| `(deviceops_\w+)(?:\{([^}]*)\})?` \|", PAGE, re.MULTILINE)
    }
    families = [each for text in exposed.values() for each in text_string_to_metric_families(text)]
    there = {
        family.name + ("_total" if family.type == "counter" else ""): {
            label for sample in family.samples for label in labels[sample.name]
        }
        - ADDED_BY_PROMETHEUS
        for family in families
        if family.name.startswith("deviceops_")
    }
    assert told == there


def selectors(expression: Any) -> Iterator[Any]:
    """Every place in an expression where series are chosen."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression
    for name in ("expr", "lhs", "rhs", "param", "vector_selector"):
        if (part := getattr(expression, name, None)) is not None:
            yield from selectors(part)
    for part in getattr(expression, "args", ()):
        yield from selectors(part)


def groupings(expression: Any) -> Iterator[str]:
    """Every label by which an expression groups or matches."""
    labels = getattr(getattr(expression, "modifier", None), "labels", None)
    yield from labels or ()
    for name in ("expr", "lhs", "rhs"):
        if (part := getattr(expression, name, None)) is not None:
            yield from groupings(part)
    for part in getattr(expression, "args", ()):
        yield from groupings(part)


def shown() -> Iterator[tuple[str, str, str]]:
    """Of every alert and every panel: its name, its expression, and the text beside it that names labels."""
    for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"], ""
    for panel in json.loads((MONITORING / "dashboard.json").read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"].replace("$__rate_interval", "5m"), target["legendFormat"]


def objections(
    labels: Mapping[str, Mapping[str, set[str]]], name: str, expression: str, legend: str
) -> Iterator[str]:
    """What an expression names that there is not."""
    parsed = promql_parser.parse(expression)
    known = set(ADDED_BY_PROMETHEUS)
    for selector in selectors(parsed):
        values = labels.get(selector.name)
        if values is None:
            yield f"{name}: there is no {selector.name}"
            continue
        known |= values.keys()
        for matcher in selector.matchers.matchers:
            pattern = matcher.value if "Re" in str(matcher.op) else re.escape(matcher.value)
            if not any(re.fullmatch(pattern, value) for value in values.get(matcher.name, ())):
                yield f"{name}: no {matcher.name} of {selector.name} is {matcher.value}"
    for label in {*groupings(parsed), *re.findall(r"\{\{(\w+)\}\}", legend)} - known:
        yield f"{name}: nothing has a label {label}"


def test_alerts_and_panels_speak_of_series_that_there_are(labels: Mapping[str, Mapping[str, set[str]]]) -> None:
    found = [objection for each in shown() for objection in objections(labels, *each)]
    assert found == []
    (wrong,) = objections(labels, "wrong", "rate(deviceops_reports_totals[5m])", "")
    assert wrong == "wrong: there is no deviceops_reports_totals"
    for expression in ('deviceops_reports_total{verdict="good"}', "sum by (state) (deviceops_reports_total)"):
        assert list(objections(labels, "wrong", expression, "")), expression


def test_the_dashboard_and_the_alerts_leave_no_metric_out(
    labels: Mapping[str, Mapping[str, set[str]]],
) -> None:
    used = {
        selector.name for _, expression, _ in shown() for selector in selectors(promql_parser.parse(expression))
    }
    ours = {name for name in labels if name.startswith("deviceops_") and not name.endswith(("_sum", "_count"))}
    assert ours <= used


async def test_messages_that_wait_for_a_transaction_are_in_flight_until_it_has_committed(
    deviceops_on_broker: Deviceops, channel: AbstractChannel
) -> None:
    prefix = deviceops_on_broker.settings["topology_prefix"]
    in_flight = f"deviceops_in_flight_messages {prefix}.reports"
    with running(deviceops_on_broker) as worker:
        eventually(worker.is_ready)
        file = make_url(deviceops_on_broker.settings["database_url"]).database
        assert file is not None
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await send(await channel.get_exchange(prefix), report(), report(), report())
            eventually(lambda: worker.metrics()[in_flight] == 3)
            other.execute("COMMIT")
        eventually(lambda: worker.metrics()[in_flight] == 0)


def test_requests_are_counted_by_their_route_and_never_by_what_callers_make_up(
    deviceops_on_sqlite: Deviceops,
) -> None:
    with serving(deviceops_on_sqlite) as server, server.client() as client:
        for _ in range(2):
            client.get(f"/v0/operations/{NOWHERE}/")
        client.get("/v0/made-up/")
        client.request("BREW", "/v0/operations/")
        client.get("/v0/operations/", headers={"Authorization": "Bearer made-up"})
        families = {each.name: each for each in text_string_to_metric_families(server.probe("metrics").text)}
    counted = {
        (each.labels["method"], each.labels["route"], each.labels["status"]): each.value
        for each in families["deviceops_http_requests"].samples
    }
    assert counted == {
        ("GET", "/v0/operations/{operation_id}/", "404"): 2,
        ("GET", "", "404"): 1,
        ("other", "/v0/operations/", "405"): 1,
        ("GET", "", "401"): 1,
    }


def test_a_standby_can_be_recounted_and_says_that_metrics_do_not_hear_of_it(
    new_postgresql_database: NewDatabase, tmp_path: Path
) -> None:
    url = new_postgresql_database()
    in_a_thread(as_on_a_standby(url))
    done = Deviceops(tmp_path, {"database_url": url})("recount")
    assert (done.returncode, done.stdout) == (0, "operations recounted: 0; all counters agree\n")
    assert done.stderr.startswith("metrics will not tell of this recount: cannot execute DELETE in a read-only")


async def as_on_a_standby(url: str) -> None:
    """Have every later transaction of a database only read."""
    database = Database(make_url(url))
    async with database.write() as connection:
        name = make_url(url).database
        await connection.exec_driver_sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await database.close()


async def test_metrics_answer_while_the_database_does_not(
    deviceops_on_broker: Deviceops, new_postgresql_database: NewDatabase
) -> None:
    url = make_url(new_postgresql_database())
    async with proxy_to(url.host or "", url.port or 5432) as proxy:
        through = url.set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False)
        with running(deviceops_on_broker.with_settings(database_url=through, stale_after="0.5")) as worker:
            await asyncio.to_thread(eventually, lambda: "deviceops_parked_reports" in worker.metrics())
            await asyncio.to_thread(eventually, worker.is_ready)  # it looks at the schema first, beside
            proxy.swallow = True
            looking = worker_looks(worker)
            await asyncio.to_thread(eventually, lambda: looking() >= 1)  # several parts of a worker look
            async with asyncio.timeout(2):
                answer = await asyncio.to_thread(worker.metrics)
            assert answer["deviceops_parked_reports"] == 0
            assert answer["deviceops_open_dead_letters malformed"] == 0
            proxy.swallow = False
            proxy.cut()
            await asyncio.to_thread(worker.process.terminate)
            await asyncio.to_thread(worker.process.wait, 30)


def worker_looks(worker: Running) -> Any:
    """Whether the worker is waiting for the database, as a connection that is in use shows."""
    return lambda: worker.metrics()["deviceops_database_pool_in_use batches"]
