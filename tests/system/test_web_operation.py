"""The page of an operation: what it shows is what the database has, and each act does what its form says."""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import httpx
import pytest
from markupsafe import escape
from sqlalchemy import make_url

from tests.support import paging
from tests.support.command import Deviceops
from tests.support.databases import in_a_thread
from tests.support.paging import Visitor, signed_in
from tests.support.sending import announcement_body, encoded, report_body
from tests.support.serving import NOWHERE, Server, serving, token
from worker.pages.operation.announce import MOST
from worker.pages.operation.going import GROUPS
from worker.store import audit
from worker.store.database import Database

OPERATION = UUID(int=0xABCDEF << 100)
ADDRESS, API = f"/operations/{OPERATION}", f"/v0/operations/{OPERATION}/"
DEVICES = [UUID(int=number + (1 << 90)) for number in range(60)]
ANNOUNCED = 70
TIMING = {
    "timeouts": {"pending": 7_200, "step": 86_400},
    "deadline": "2100-01-01T00:00:00Z",
    "abort": {"failed_percent": 60, "min_settled": 20, "action": "notify"},
}
WRITES = ("announce", "cancel", "retry")


@pytest.fixture
def visitor(server: Server) -> Iterator[Visitor]:
    """A visitor who may do everything."""
    with signed_in(server) as visitor:
        yield visitor


@pytest.fixture
def roll_out(deviceops_at_server: Deviceops) -> Deviceops:
    """An operation of 60 devices: 20 succeeded, 16 failed for several reasons, 2 timed out, 22 are open."""
    lines: list[object] = [_announced(announcement_body(OPERATION, DEVICES, device_count=ANNOUNCED, **TIMING))]
    for number, device in enumerate(DEVICES):
        if number < 20:
            lines += [_report(device, "PROCESSING"), _report(device, "SUCCESS", service_id="ota-service")]
        elif number < 27:
            lines += [_report(device, "PROCESSING"), _report(device, "FAILURE", code="DISK_FULL", reason="full")]
        elif number < 32:
            lines.append(_report(device, "FAILURE", reason=f"no answer in {number} s", service_id="ota-service"))
        elif number < 36:
            lines.append(_report(device, "FAILURE"))
        elif number < 38:
            lines.append(_report(device, "TIMEOUT", code="step", reason="silent"))
        elif number < 50:
            lines.append(_report(device, "DISPATCHED"))
    lines += [_report(UUID(int=number), "SUCCESS") for number in (1, 2, 3)]
    deviceops_at_server.out("ingest", "-", lines=_lines(lines))
    return deviceops_at_server


def _announced(body: object) -> object:
    return {"type": "operation.announced", "body": body}


def _report(device: UUID, state: str, **more: object) -> object:
    return report_body(OPERATION, device, state, **more)


def _lines(bodies: Sequence[object]) -> str:
    return "\n".join(encoded(each).decode() for each in bodies)


def text_of(page: httpx.Response) -> str:
    """The text that a page shows, without spaces before marks."""
    return re.sub(r" ([,.%…:])", r"\1", paging.text_of(page))


def links(page: httpx.Response, pattern: str = ".*") -> Mapping[str, str]:
    """The addresses of links by what they show."""
    found = re.findall(r'<a\b[^>]*\bhref="([^"]*)"[^>]*>(.*?)</a>', page.text, flags=re.DOTALL)
    named = {" ".join(re.sub("<[^>]*>", " ", text).split()): unescape(href) for href, text in found}
    return {name: href for name, href in named.items() if re.fullmatch(pattern, href)}


def devices_on(page: httpx.Response) -> list[str]:
    """The devices of the rows, in order."""
    return re.findall(r'id="device-([0-9a-f-]{36})"', page.text)


def fields_of(page: httpx.Response, action: str) -> dict[str, list[str]]:
    """What the hidden fields of a form have."""
    form = page.text.split(f'<form method="post" action="{action}"', 1)[1].split("</form>", 1)[0]
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', form):
        found.setdefault(name, []).append(unescape(value))
    return found


def content(api: httpx.Client, path: str, /, **parameters: str) -> Any:
    response = api.get(path, params=parameters or None)  # without any, those of the path stay
    assert response.is_success, response.text
    return response.json()["content"]


def acts(deviceops: Deviceops, target: object = OPERATION) -> Sequence[audit.Entry]:
    """What was done to an operation, the latest first."""

    async def read() -> Sequence[audit.Entry]:
        database = Database(make_url(deviceops.settings["database_url"]))
        try:
            async with database.read() as connection:
                return await audit.latest(connection, 100, target=str(target))
        finally:
            await database.close()

    return in_a_thread(read())


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


def test_cancelling_names_the_number_and_does_it_once(
    roll_out: Deviceops, api: httpx.Client, visitor: Visitor
) -> None:
    address = f"{ADDRESS}/cancel"
    assert "Cancel 22…" in text_of(visitor.get(ADDRESS))
    form = visitor.get(address)
    assert "22 device operations are not settled, and will be cancelled for good." in text_of(form)
    assert text_of(visitor.get(f"{address}/number")) in text_of(form)
    [key] = fields_of(form, address)["key"]

    done = visitor.act(address, key=key, reason="<b>enough</b>")

    assert (done.status_code, done.headers["Location"]) == (303, ADDRESS)
    page = visitor.get(ADDRESS)
    assert "Cancelled 22 device operations. The operation is DISPATCHING." in text_of(page)
    assert content(api, f"{API}devices/", state="CANCELLED")["count"] == 22
    one = content(api, f"{API}devices/{DEVICES[-1]}/")
    assert (one["state"], one["reason"]) == ("CANCELLED", "<b>enough</b>")
    reports = content(api, f"{API}devices/{DEVICES[-1]}/reports/")["results"]
    assert reports[-1]["service_id"] == "tests"
    assert "cancelled 22 device operations" in text_of(page)
    assert "<b>enough" not in page.text

    again = visitor.act(address, key=key)
    assert "Nothing was left to cancel" in text_of(visitor.get(again.headers["Location"]))
    last, first = acts(roll_out)
    assert (first.who, first.action, first.detail["reason"]) == ("tests", "operation.cancel", "<b>enough</b>")
    assert first.request_id
    assert first.detail["outcome"] == "cancelled 22 device operations"
    assert last.detail["outcome"] == "cancelled 0 device operations"
    assert "Nothing is left to cancel" in text_of(visitor.get(address))


def test_announcing_adds_devices_and_says_what_is_wrong_beside_the_field(
    roll_out: Deviceops, api: httpx.Client, visitor: Visitor
) -> None:
    address, new = f"{ADDRESS}/announce", [str(uuid4()) for _ in range(3)]
    [key] = fields_of(visitor.get(address), address)["key"]
    for written, problem in (
        ({"devices": f"{new[0]}\n\n  <i>x</i>\n"}, "Not the id of a device (a UUID): line 3: '<i>x</i>'."),
        ({"devices": "", "expected": ""}, "Enter at least one device id"),
        ({"devices": new[0], "expected": "-3"}, "'-3' is not a whole number"),
        ({"devices": new[0], "expected": "9" * 19}, "is not a whole number"),
    ):
        refused = visitor.act(address, key=key, **written)
        assert refused.status_code == 400
        assert problem in text_of(refused)
        assert 'aria-invalid="true"' in refused.text
        assert fields_of(refused, address)["key"] == [key]
        kept = unescape(refused.text.split("<textarea", 1)[1].split(">\n", 1)[1].split("</textarea>", 1)[0])
        assert kept == written["devices"]
    assert content(api, f"{API}devices/")["count"] == len(DEVICES)
    assert acts(roll_out) == []

    typed = f"{new[0]}\r\n{{{new[1].upper()}}},\r\n{new[0]}\r\n{DEVICES[0]}\r\n"
    done = visitor.act(address, key=key, devices=typed, expected="80")

    assert done.headers["Location"] == ADDRESS
    shown = text_of(visitor.get(ADDRESS))
    assert "Announced 3 devices, 2 of them new. The operation has 62 devices of 80 announced now." in shown
    assert content(api, f"{API}devices/{new[1]}/")["state"] == "CREATED"
    assert content(api, f"{API}devices/{DEVICES[0]}/")["state"] == "SUCCESS"
    assert "60% failed of at least 20 settled" in shown  # what else was announced stays
    visitor.act(address, key=key, devices=new[2])
    assert "This was announced before: nothing has changed." in text_of(visitor.get(ADDRESS))
    assert [each.detail["outcome"] for each in acts(roll_out)] == ["duplicate", "announced"]


@pytest.mark.usefixtures("roll_out")
def test_as_many_devices_as_the_form_says_are_announced_at_a_time(api: httpx.Client, visitor: Visitor) -> None:
    many = "\r\n".join(str(UUID(int=number + (1 << 100))) for number in range(MOST))

    done = visitor.act(f"{ADDRESS}/announce", devices=many)

    assert done.status_code == 303, done.text
    assert content(api, f"{API}devices/")["count"] == len(DEVICES) + MOST


def test_an_operation_without_a_type_is_given_one_with_the_announcement(
    deviceops_at_server: Deviceops, api: httpx.Client, visitor: Visitor
) -> None:
    deviceops_at_server.out("ingest", "-", lines=_lines([_report(DEVICES[0], "CREATED")]))
    address = f"{ADDRESS}/announce"
    assert "Operation without a type" in text_of(visitor.get(ADDRESS))

    refused = visitor.act(address, devices=str(DEVICES[1]))
    assert "This operation has no type yet" in text_of(refused)
    visitor.act(address, devices=str(DEVICES[1]), operation_type="CONVERGE")

    assert content(api, API)["operation"] == "CONVERGE"
    assert content(api, f"{API}devices/")["count"] == 2


def test_a_retry_says_how_many_it_is_and_both_operations_link_to_each_other(
    roll_out: Deviceops, api: httpx.Client, visitor: Visitor
) -> None:
    address = f"{ADDRESS}/retry"
    for query, number, expected in (
        ("", 18, None),
        ("?state=FAILURE", 16, None),
        ("?state=CANCELLED", 0, None),
        ("?code=DISK_FULL", 7, DEVICES[20:27]),
        ("?service_id=ota-service&state=FAILURE&state=TIMEOUT", 5, DEVICES[27:32]),
        ("?reason=no+answer+in+1+s", 5, DEVICES[27:32]),
        ("?no_reason=true&state=FAILURE", 4, DEVICES[32:36]),
    ):
        form = visitor.get(f"{address}{query}")
        if not number:
            assert "No device operation is found by these filters" in text_of(form)
            continue
        assert f"Retry {number} device operations" in text_of(form)
        fields = fields_of(form, address)
        [new_id] = fields["new_id"]
        if expected is None:
            continue
        done = visitor.act(address, **fields)  # type: ignore[arg-type]  # lists are repeated fields
        assert done.headers["Location"] == f"/operations/{new_id}"
        page = visitor.get(done.headers["Location"])
        assert f"Created: the retry of {number} device operations of operation {OPERATION}." in text_of(page)
        assert links(page)[str(OPERATION)] == ADDRESS
        assert sorted(devices_on(page)) == sorted(map(str, expected))
        assert new_id in links(visitor.get(ADDRESS))
        query_of = content(api, f"/v0/operations/{new_id}/")["operation_device_query"]
        assert query_of["retry_of"] == str(OPERATION)

        again = visitor.act(address, **fields)  # type: ignore[arg-type]
        assert again.headers["Location"] == f"/operations/{new_id}"
        assert "This retry was there already" in text_of(visitor.get(again.headers["Location"]))
        assert [each.detail["outcome"] for each in acts(roll_out)[:2]] == ["was there already", "created"]
    assert content(api, API)["state"] == "DISPATCHING"


def test_a_retry_that_cannot_be_made_changes_nothing_and_says_why(
    roll_out: Deviceops, api: httpx.Client, visitor: Visitor
) -> None:
    address, count = f"{ADDRESS}/retry", len(api.get("/v0/operations/").json()["results"])
    for query, problem in (
        ({"code": "a b"}, "is not a code"),
        ({"state": "SUCCESS"}, "SUCCESS cannot be retried"),
        ({"service_id": "x" * 256}, "at most 255 characters"),
    ):
        form = visitor.get(address, params=query)
        assert form.status_code == 400
        assert problem in text_of(form)
        assert "state" in query or f'value="{next(iter(query.values()))}"' in form.text
    new = str(uuid4())
    nothing = visitor.act(address, state="CANCELLED", new_id=new)
    assert nothing.status_code == 400
    assert "Nothing was created: operation" in text_of(nothing)
    taken = visitor.act(address, state="FAILURE", new_id=str(OPERATION))
    assert "Nothing was created: an operation cannot be the retry of itself" in text_of(taken)
    assert visitor.act(f"/operations/{NOWHERE}/retry", state="FAILURE", new_id=new).status_code == 404
    assert len(api.get("/v0/operations/").json()["results"]) == count
    assert all(each.detail["outcome"].startswith("refused: ") for each in acts(roll_out))


def test_who_may_only_read_sees_no_act_and_can_do_none(deviceops_on_sqlite: Deviceops) -> None:
    text, setting = token(deviceops_on_sqlite, "reader", ("read:operation",))
    lines = _lines([_announced(announcement_body(OPERATION, DEVICES[:2])), _report(UUID(int=1), "SUCCESS")])
    deviceops_on_sqlite.out("ingest", "-", lines=lines)
    with (
        serving(deviceops_on_sqlite.with_settings(api_tokens=setting)) as server,
        signed_in(server, text) as reader,
    ):
        page = reader.get(ADDRESS)
        assert page.status_code == 200
        assert not links(page, ".*/(announce|cancel|retry)([?].*)?")
        assert not links(page, "/dead-letters.*")
        assert "1 about devices that are not registered" in text_of(page)
        assert "topic=dead-letters" not in page.text
        assert reader.get(f"{ADDRESS}/going").status_code == 200
        for act in WRITES:
            assert reader.get(f"{ADDRESS}/{act}").status_code == 403
            fields = {"devices": str(DEVICES[5]), "state": "FAILURE", "new_id": str(uuid4())}
            assert reader.act(f"{ADDRESS}/{act}", **fields).status_code == 403
        with signed_in(server) as other:
            foreign = other.post(f"{ADDRESS}/cancel", headers={"Origin": "https://elsewhere.example"})
            assert foreign.status_code == 403
            assert "2 open" in text_of(other.get(ADDRESS))
    assert acts(deviceops_on_sqlite) == []


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
    report = _report(DEVICES[0], "FAILURE", reason=hostile, service_id=hostile)
    deviceops_at_server.out("ingest", "-", lines=_lines([_announced(body), report]))

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
    reports = [
        _report(device, "FAILURE", code=f"E{number}") for number, device in enumerate(DEVICES[: GROUPS + 3])
    ]
    announced = _announced(announcement_body(OPERATION, DEVICES))
    deviceops_at_server.out("ingest", "-", lines=_lines([announced, *reports]))

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
    announced = _announced(announcement_body(OPERATION, DEVICES))
    failed = [_report(device, "FAILURE", reason="\U0001f4a5" * 4_000) for device in DEVICES[:3]]
    deviceops_at_server.out("ingest", "-", lines=_lines([announced, *failed]))
    [(href, _)] = re.findall(r'<a id="group-\d+" href="([^"]*)" aria-label="([^"]*)"', visitor.get(ADDRESS).text)

    page = visitor.get(unescape(href))

    assert sorted(devices_on(page)) == sorted(map(str, DEVICES[:3]))
    assert "too long for a list that renews itself" in text_of(page)
    parts = re.findall(r'data-live="[^"]*"[^>]*hx-get="([^"]*)"', page.text)
    assert parts == [f"{ADDRESS}/going"]


def test_an_operation_without_devices_says_what_to_do(deviceops_at_server: Deviceops, visitor: Visitor) -> None:
    deviceops_at_server.out("ingest", "-", lines=_lines([_announced(announcement_body(OPERATION))]))

    shown = text_of(visitor.get(ADDRESS))

    assert "No device is registered yet." in shown
    assert "Nothing: no device is registered or announced." in shown
    assert "bars appear here with the first device that does" in shown
    assert links(visitor.get(ADDRESS))["Announce devices"] == f"{ADDRESS}/announce"
