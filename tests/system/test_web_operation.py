"""The page of an operation: what it shows is what the database has."""

import csv
import io
import re
from html import unescape
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx
import pytest
from markupsafe import escape

from tests.support.command import Deviceops
from tests.support.operation_page import (
    ADDRESS,
    ANNOUNCED,
    API,
    DEVICES,
    OPERATION,
    WRITES,
    announced,
    content,
    devices_on,
    lines_of,
    links,
    report,
    text_of,
)
from tests.support.paging import Visitor
from tests.support.sending import announcement_body
from tests.support.serving import NOWHERE, Server
from worker.pages.operation.going import GROUPS


@pytest.mark.usefixtures("roll_out")
def test_what_the_page_says_of_an_operation_is_what_the_database_has(api: httpx.Client, visitor: Visitor) -> None:
    page = visitor.get(ADDRESS)
    shown, operation, progress = text_of(page), content(api, API), content(api, f"{API}progress/")

    assert page.status_code == 200
    counts = operation["operation_stats"]["device_operation_statuses_count"]
    assert f"Settled {progress['settled']} of {ANNOUNCED}, 54%" in shown
    assert f"Registered {counts['resolved_device_count']} of {ANNOUNCED} announced" in shown
    assert f"Dispatched {counts['dispatched_device_count']} " in shown
    assert f"Succeeded {counts['success_device_count']} " in shown
    assert f"Failed after dispatch {counts['failed_device_count']} " in shown
    assert f"Failed before dispatch {counts['dispatch_failed_count']} " in shown
    assert "20 settled well 16 failed 2 timed out 32 open" in shown
    assert operation["state"] in shown
    assert "Open 10 created, 12 dispatched" in shown
    assert "Not registered yet 10 of 70 announced" in shown
    assert "3 about devices that are not registered" in shown
    assert "dispatched within 2 h of its registration a report every 1 d, once dispatched settled by 2100" in shown
    assert "60% failed of at least 20 settled: then a change event says so. Now 47.4%: 18 of 38." in shown
    assert "12 more failures in a row cross it." in shown
    assert re.search(r"Next timeout 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC in (2 h|1 h 5\d min)", shown)
    parked = next(iter(links(page, "/dead-letters[?].*").values()))
    assert parse_qs(urlsplit(parked).query) == {
        "reason": ["unknown_device_operation"],
        "operation_id": [str(OPERATION)],
    }
    part = text_of(visitor.get(f"{ADDRESS}/going"))
    assert part[part.index("What it waits for Open") : part.index("Next timeout")] in shown
    assert part[part.index("Why devices failed") :] in shown
    assert text_of(visitor.get(f"{ADDRESS}/devices")) in shown


@pytest.mark.usefixtures("roll_out")
def test_bars_and_their_table_add_up_to_what_has_settled(visitor: Visitor) -> None:
    page = visitor.get(ADDRESS)

    [drawing] = re.findall(
        r'<svg class="settled" role="img" aria-label="([^"]*)".*?</svg>', page.text, flags=re.DOTALL
    )
    table = page.text.split('id="chart-table"', 1)[1].split("</table>", 1)[0]
    numbers = [int(each) for each in re.findall(r'<data class="number" value="(\d+)">', table)]
    assert drawing.startswith("38 settled from 20")
    assert sum(numbers[::2]) == numbers[-1] == 38
    assert page.text.count('class="over"') + page.text.count('class="present"') == sum(n > 0 for n in numbers[::2])


@pytest.mark.usefixtures("roll_out")
def test_a_click_leads_from_each_group_of_reasons_to_its_devices(api: httpx.Client, visitor: Visitor) -> None:
    page = visitor.get(ADDRESS)
    groups = content(api, f"{API}reasons/")["results"]
    found = re.findall(r'<a id="group-\d+" href="([^"]*)" aria-label="([^"]*)"', page.text)

    assert len(found) == len(groups) == 4
    for (href, label), group in zip(found, groups, strict=True):
        listed = devices_on(visitor.get(unescape(href)))
        assert len(listed) == group["count"]
        assert label.startswith(f"{group['count']} device")
        expected = httpx.URL(group["devices"])
        if group["reason"]:  # with an empty `reason` the API finds those without one
            assert listed == [each["device_id"] for each in content(api, str(expected))["results"]]
    assert "without a code" not in page.text
    none = next(unescape(href) for href, _ in found if "no_reason" in href)
    assert sorted(devices_on(visitor.get(none))) == sorted(map(str, DEVICES[32:36]))


@pytest.mark.parametrize(
    "chosen",
    [
        {"state": "FAILURE"},
        {"state": "FAILURE,TIMEOUT", "ordering": "-state"},
        {"code": "DISK_FULL"},
        {"reason": "no answer in 5 s"},
        {"service_id": "ota-service"},
        {"updated_after": "2100-01-01T00:00:00Z"},
        {"updated_before": "2100-01-01T00:00:00Z", "state": "SUCCESS"},
        {"ordering": "-updated_at", "limit": "50"},
        {"limit": "7"},
    ],
    ids=str,
)
@pytest.mark.usefixtures("roll_out")
def test_filters_and_pages_are_those_of_the_api(
    api: httpx.Client, visitor: Visitor, chosen: dict[str, str]
) -> None:
    expected = []
    answer = content(api, f"{API}devices/", **{"limit": "20", **chosen}, cursor="")
    while True:
        expected += [each["device_id"] for each in answer["results"]]
        if answer["next"] is None:
            break
        answer = content(api, answer["next"])

    page, found, number = visitor.get(ADDRESS, params=chosen), list[str](), 0
    while True:
        number += 1
        found += devices_on(page)
        assert page.status_code == 200
        following = links(page).get("Next page")
        if following is None:
            break
        assert following.startswith(f"{ADDRESS}?")
        assert following.endswith("#devices")
        page = visitor.get(following)

    assert found == expected
    assert number == max(-(-len(expected) // int(chosen.get("limit", "20"))), 1)
    if number > 1:
        first = visitor.get(links(page)["First page"])
        assert devices_on(first) == found[: int(chosen.get("limit", "20"))]
        assert links(page)["Previous page"]
    if not expected:
        assert "No device operation matches these filters." in text_of(page)


@pytest.mark.usefixtures("roll_out")
def test_the_form_keeps_what_was_chosen(visitor: Visitor) -> None:
    chosen = {
        "state": "TIMEOUT",
        "code": "step",
        "service_id": 'a"b',
        "updated_after": "2026-01-31T08:00:00",
        "updated_before": "",
        "ordering": "",
        "limit": "50",
        "no_reason": "true",
    }
    page = visitor.get(ADDRESS, params=chosen)

    assert 'value="TIMEOUT" checked' in page.text
    assert 'name="code" value="step"' in page.text
    assert 'name="service_id" value="a&#34;b"' in page.text
    assert 'name="updated_after" type="datetime-local" step="1" value="2026-01-31T08:00:00"' in page.text
    assert 'name="no_reason" value="true" checked' in page.text
    assert "<option selected>50</option>" in page.text


@pytest.mark.usefixtures("roll_out")
def test_an_export_is_that_of_the_api_with_the_same_filters(
    server: Server, api: httpx.Client, visitor: Visitor
) -> None:
    page = visitor.get(ADDRESS, params={"state": "FAILURE", "limit": "7", "ordering": "state"})

    for name, media_type in (("CSV", "text/csv"), ("JSON lines", "application/x-ndjson")):
        exported = visitor.get(links(page)[name])
        expected = api.get(f"{API}devices/", params={"state": "FAILURE"}, headers={"Accept": media_type})
        assert exported.content == expected.content
        assert exported.headers["Content-Type"] == expected.headers["Content-Type"]
        assert exported.headers["Content-Disposition"] == expected.headers["Content-Disposition"]
    unnamed = visitor.get(f"{ADDRESS}/export", params={"format": "csv", "no_reason": "true"})
    rows = list(csv.DictReader(io.StringIO(unnamed.text)))
    assert {row["device_id"] for row in rows} == set(map(str, DEVICES[32:36]))
    with Visitor(server) as stranger:
        refused = stranger.get(f"{ADDRESS}/export", params={"format": "csv"})
    assert (refused.status_code, refused.headers["Location"].partition("?")[0]) == (303, "/sign-in")


def test_what_does_not_exist_is_a_page_that_says_so(visitor: Visitor) -> None:
    for id_ in (NOWHERE, "nothing", "%3Cb%3E", "0" * 2_000):
        for part in ("", "/going", "/devices", "/export?format=csv", *(f"/{act}" for act in WRITES)):
            found = visitor.get(f"/operations/{id_}{part}")
            assert (found.status_code, "<b>" in found.text) == (404, False), part
            assert found.headers["Content-Type"].startswith("text/html")
    for act in WRITES:
        fields = {"devices": str(DEVICES[0]), "state": "FAILURE", "new_id": str(uuid4())}
        assert visitor.act(f"/operations/{NOWHERE}/{act}", **fields).status_code == 404


@pytest.mark.usefixtures("roll_out")
def test_what_an_address_misspells_is_said(visitor: Visitor) -> None:
    for query in (
        "state=BROKEN",
        "code=a%20b",
        "limit=0",
        "cursor=x",
        "groups=-1",
        "updated_after=never",
        "sate=FAILURE",
    ):
        found = visitor.get(f"{ADDRESS}?{query}")
        assert found.status_code == 400
        assert query.partition("=")[0] in text_of(found)


def test_text_from_outside_is_never_markup(deviceops_at_server: Deviceops, visitor: Visitor) -> None:
    hostile = "</pre><script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 777777*777777 }}\u202e\x1b[31m"
    body = announcement_body(
        OPERATION, DEVICES[:1], operation_type=hostile, reason=hostile, arguments={hostile: hostile},
        operation_device_query={"retry_of": hostile}, schedule_args={"x": [hostile]}
    )  # fmt: skip
    failed = report(DEVICES[0], "FAILURE", reason=hostile, service_id=hostile)
    deviceops_at_server.out("ingest", "-", lines=lines_of([announced(body), failed]))

    pages = [
        visitor.get(f"{ADDRESS}{part}") for part in ("", "/announce", "/cancel", "/retry", "/going", "/devices")
    ]
    pages.append(visitor.get(ADDRESS, params={"reason": hostile, "service_id": hostile[:200]}))
    pages.append(
        visitor.get(f"{ADDRESS}/retry", params={"reason": hostile, "code": hostile, "service_id": hostile})
    )
    pages.append(visitor.act(f"{ADDRESS}/announce", devices=hostile, expected=hostile[:20]))

    for page in pages:
        assert page.status_code in (200, 400), page.text
        assert "<script>alert" not in page.text
        assert "<img" not in page.text
        assert "604937061729" not in page.text
        assert "\x1b" not in page.text.replace(str(escape(hostile)), "")  # as it was typed, in a field
    assert "alert(1)" in text_of(pages[0])


def test_many_groups_of_reasons_are_shown_in_pages(deviceops_at_server: Deviceops, visitor: Visitor) -> None:
    reports = [report(device, "FAILURE", code=f"E{number}") for number, device in enumerate(DEVICES[: GROUPS + 3])]
    operation = announced(announcement_body(OPERATION, DEVICES))
    deviceops_at_server.out("ingest", "-", lines=lines_of([operation, *reports]))

    page = visitor.get(f"{ADDRESS}?state=FAILURE")
    more = visitor.get(links(page)["Smaller groups"])

    codes = [re.findall(r'aria-label="1 device of this group">', each.text) for each in (page, more)]
    assert [len(each) for each in codes] == [GROUPS, 3]
    assert f"11 to 13 of {GROUPS + 3} groups" in text_of(more)
    assert links(more)["Larger groups"] == f"{ADDRESS}#reasons"
    assert "There are no more groups." in text_of(visitor.get(f"{ADDRESS}/going?groups=100"))


def test_a_reason_as_long_as_they_get_leads_to_its_devices_and_leaves_the_rest_live(
    deviceops_at_server: Deviceops, visitor: Visitor
) -> None:
    operation = announced(announcement_body(OPERATION, DEVICES))
    failed = [report(device, "FAILURE", reason="\U0001f4a5" * 4_000) for device in DEVICES[:3]]
    deviceops_at_server.out("ingest", "-", lines=lines_of([operation, *failed]))
    [(href, _)] = re.findall(r'<a id="group-\d+" href="([^"]*)" aria-label="([^"]*)"', visitor.get(ADDRESS).text)

    page = visitor.get(unescape(href))

    assert sorted(devices_on(page)) == sorted(map(str, DEVICES[:3]))
    assert "too long for a list that renews itself" in text_of(page)
    parts = re.findall(r'data-live="[^"]*"[^>]*hx-get="([^"]*)"', page.text)
    assert parts == [f"{ADDRESS}/going"]


def test_an_operation_without_devices_says_what_to_do(deviceops_at_server: Deviceops, visitor: Visitor) -> None:
    deviceops_at_server.out("ingest", "-", lines=lines_of([announced(announcement_body(OPERATION))]))

    shown = text_of(visitor.get(ADDRESS))

    assert "No device is registered yet." in shown
    assert "Nothing: no device is registered or announced." in shown
    assert "bars appear here with the first device that does" in shown
    assert links(visitor.get(ADDRESS))["Announce devices"] == f"{ADDRESS}/announce"
