"""Why devices failed, as people and programs ask for it: the command, HTTP, and the status of an operation."""

from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx

from tests.support.command import Deviceops
from tests.support.documents import block, run
from tests.support.sending import DEVICES as THREE
from tests.support.sending import OPERATIONS, announcement_body, encoded, report_body
from tests.support.serving import DEVICES, OF_OPERATION, announce, put

OPERATION = OPERATIONS[0]
CAUSES = ({"reason": "disk 1 full"}, {"reason": "disk 22 full"}, {"code": "gone", "reason": "no answer in 5 s"})


def ingest(deviceops: Deviceops) -> None:
    announced = {"type": "operation.announced", "body": announcement_body(OPERATION, THREE)}
    reports = [
        report_body(OPERATION, device, "FAILURE", occurred_at=f"2026-01-31T08:0{number}:00Z", **CAUSES[number])
        for number, device in enumerate(THREE)
    ]
    deviceops.out("ingest", "-", lines="\n".join(encoded(each).decode() for each in [announced, *reports]))


def test_the_command_prints_groups_the_largest_first(deviceops: Deviceops) -> None:
    ingest(deviceops)

    found = deviceops.document("reasons", str(OPERATION))

    first, second = found
    assert first == {
        "state": "FAILURE",
        "code": None,
        "reason": "disk <number> full",
        "count": 2,
        "first_at": "2026-01-31T08:00:00Z",
        "last_at": "2026-01-31T08:01:00Z",
    }
    assert (second["code"], second["reason"], second["count"]) == ("gone", "no answer in 5 s", 1)
    assert deviceops.document("reasons", str(OPERATION), "--limit", "1") == [first]
    table = deviceops.out("reasons", str(OPERATION))
    assert "disk <number> full" in table
    assert "67%" in table
    assert "of 2 groups" not in table
    cut = deviceops.out("reasons", str(OPERATION), "--limit", "1")
    assert cut.endswith("the largest 1 of 2 groups; --limit shows more\n")
    assert "disk <number> full" in deviceops.out("status", str(OPERATION))
    refused = deviceops("reasons", str(OPERATIONS[1]))
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "is unknown" in refused.stderr


def test_the_commands_of_the_page_lead_from_a_cause_to_its_devices(
    deviceops_on_sqlite: Deviceops,
) -> None:
    announced = {"type": "operation.announced", "body": announcement_body(OPERATION, THREE)}
    causes = ({"reason": "disk /dev/sda is full: 97% of 100 GB"}, {"code": "img.sum"})
    reports = [
        report_body(OPERATION, device, "FAILURE", **cause) for device, cause in zip(THREE, causes, strict=False)
    ]
    lines = "\n".join(encoded(each).decode() for each in [announced, *reports])
    deviceops_on_sqlite.out("ingest", "-", lines=lines)
    new = str(uuid4())
    names = {"OPERATION": str(OPERATION), "DEVICE": str(THREE[0]), "NEW": new}

    told = run(block("deploy/failures.md", "failures"), deviceops_on_sqlite, **names)

    assert told.count("1 to 1 of 1\n") == 2
    assert told.index("img.sum") < told.index("disk /dev/sda is full")
    assert f"operation {new} created for 1 device operation of operation {OPERATION}" in " ".join(told.split())
    exported = (deviceops_on_sqlite.directory / "failed.csv").read_text().splitlines()
    assert len(exported) == 1 + len(reports)


def test_a_narrow_table_leaves_room_for_reasons_and_says_where_none_was_given(
    deviceops_on_sqlite: Deviceops,
) -> None:
    announced = {"type": "operation.announced", "body": announcement_body(OPERATION, THREE[:2])}
    reason = "the checksum differs"
    reports = [
        report_body(OPERATION, THREE[0], "FAILURE", reason=reason),
        report_body(OPERATION, THREE[1], "FAILURE"),
    ]
    lines = "\n".join(encoded(each).decode() for each in [announced, *reports])
    deviceops_on_sqlite.out("ingest", "-", lines=lines)

    narrow = deviceops_on_sqlite.with_environment(COLUMNS="80").out("reasons", str(OPERATION))
    wide = deviceops_on_sqlite.with_environment(COLUMNS="120").out("reasons", str(OPERATION))

    assert wide.split()[:7] == ["state", "devices", "share", "code", "reason", "first", "last"]
    assert narrow.split()[:6] == ["state", "devices", "share", "code", "reason", "last"]
    for table in (narrow, wide):
        assert len(table.splitlines()) == 3
        assert reason in table
        assert "none given" in table


def test_http_gives_pages_of_groups_with_the_way_to_their_devices(api: httpx.Client) -> None:
    announce(api, DEVICES[:3])
    for number, device in enumerate(DEVICES[:3]):
        assert put(api, "FAILURE", f"{OF_OPERATION}devices/{device}/", **CAUSES[number]).status_code == 200

    page = api.get(f"{OF_OPERATION}reasons/", params={"limit": 1}).json()["content"]

    [largest] = page["results"]
    assert (page["count"], page["previous"], largest["count"]) == (2, None, 2)
    assert (largest["code"], largest["reason"], largest["example"]) == (None, "disk <number> full", "disk 1 full")
    way = urlsplit(largest["devices"])
    assert (way.path, parse_qs(way.query)) == (
        f"{OF_OPERATION}devices/",
        {"state": ["FAILURE"], "reason": ["disk <number> full"]},
    )
    [other] = api.get(page["next"]).json()["content"]["results"]
    assert (other["code"], parse_qs(urlsplit(other["devices"]).query)["code"]) == ("gone", ["gone"])
    assert api.get(f"/v0/operations/{OPERATION}/reasons/").status_code == 404
