"""The pages of a device and of a device operation: what they show is what the database has."""

import json
import re
from html import unescape
from typing import Any
from uuid import UUID

import httpx
import pytest

from tests.support.command import Deviceops
from tests.support.paging import signed_in, text_of
from tests.support.sending import announcement_body, report_body
from tests.support.serving import NOWHERE, OPERATIONS, SCOPES, Server, serving, token

DEVICE, OTHER = UUID(int=0xD1), UUID(int=0xD2)
OPERATION = UUID(int=0x0A)
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}\x1b[31m\u202eevil"


def announced(operation: UUID, **more: object) -> dict[str, object]:
    body = announcement_body(operation, [DEVICE, OTHER], **more)
    return {"type": "operation.announced", "body": body}


def ingest(deviceops: Deviceops, *lines: object) -> None:
    deviceops.out("ingest", "-", lines="".join(f"{json.dumps(line)}\n" for line in lines))


def report(state: str, number: int, operation: UUID = OPERATION, **more: object) -> dict[str, Any]:
    at = f"2026-01-31T08:{number // 60:02}:{number % 60:02}Z"
    return report_body(operation, DEVICE, state, report_id=f"report-{number}", occurred_at=at, **more)


def times_in(html: str) -> list[str]:
    return re.findall(r'<time class="when" datetime="([^"]+)">', html)


def report_ids_in(html: str) -> list[str]:
    return [
        unescape(each) for each in re.findall(r'data-label="Report id"><span class="id"><bdi[^>]*>([^<]*)<', html)
    ]


def link(html: str, name: str) -> str | None:
    found = re.search(rf'<a href="([^"]+)"[^>]*>{name}</a>', html)
    return None if found is None else unescape(found[1])


def test_a_device_has_its_states_times_service_cause_expiry_and_reports(
    server: Server, deviceops_at_server: Deviceops, api: httpx.Client
) -> None:
    ingest(
        deviceops_at_server,
        announced(OPERATION, timeouts={"step": 86_400}, created_at="2026-01-31T07:00:00Z"),
        report("PROCESSING", 60, reason="half of it"),
        report("DISPATCHED", 30),
        report("PROCESSING", 90, code="NET-7", service_id="other-service"),
    )
    address = f"{OPERATIONS}{OPERATION}/devices/{DEVICE}/"
    document = api.get(address).json()["content"]
    accepted = api.get(f"{address}reports/").json()["content"]["results"]

    with signed_in(server) as visitor:
        page = visitor.get(f"/devices/{DEVICE}")
        assert page.status_code == 200
        text = text_of(page)
        for words in (
            "In 1 operation,",
            "CONVERGE",
            "half of it",
            "drift-service",
            "Times out (step)",
        ):
            assert words in text
        assert re.search(r"in (1 d|23 h 5\d min)", text)
        path = page.text.partition('<ol class="path"')[2].partition("</ol>")[0]
        reached = [
            (entry["device_operation_state"], entry["created_at"])
            for entry in document["device_operation_activity"]
        ]
        assert list(zip(re.findall(r'class="state [^"]*">(\w+)', path), times_in(path), strict=True)) == reached
        assert re.sub(r"\s+", " ", text_of(httpx.Response(200, text=path))).count("applied, repeated") == 1
        assert "4 accepted reports" in text
        assert report_ids_in(page.text) == [each["report_id"] for each in reversed(accepted)]

        ingest(
            deviceops_at_server, report("FAILURE", 120, reason="no answer after 30 s", service_id="other-service")
        )
        text = text_of(visitor.get(f"/devices/{DEVICE}"))
        assert "no answer after 30 s" in text
        assert "Grouped as no answer after <number> s" in text
        assert "Times out" not in text
        assert "FAILURE" in text
        part = visitor.get(f"/devices/{DEVICE}/operations")
        assert text_of(part) in text


def test_a_device_of_many_operations_has_pages(server: Server, deviceops_at_server: Deviceops) -> None:
    operations = [UUID(int=number) for number in range(1, 24)]
    ingest(
        deviceops_at_server,
        *(announced(each, created_at=f"2026-01-{each.int:02}T00:00:00Z") for each in operations),
    )
    with signed_in(server) as visitor:
        found: list[UUID] = []
        address: str | None = f"/devices/{DEVICE}"
        while address:
            page = visitor.get(address)
            assert "In 23 operations, the latest first" in text_of(page)
            found += map(UUID, re.findall(r'id="to-([^"]+)"', page.text))
            address = link(page.text, "Next page")
        assert found == operations[::-1]
        assert visitor.get(link(page.text, "First page") or "").text.count('class="panel entry"') == 10


def test_every_accepted_report_is_on_a_page_of_the_device_operation(
    server: Server, deviceops_at_server: Deviceops
) -> None:
    numbers = range(1, 106)
    ingest(deviceops_at_server, announced(OPERATION), *(report("PROCESSING", number) for number in numbers))
    with signed_in(server) as visitor:
        text = text_of(visitor.get(f"/devices/{DEVICE}"))
        assert "More than 100 accepted reports" in text
        found: list[str] = []
        address: str | None = f"/operations/{OPERATION}/devices/{DEVICE}"
        while address:
            page = visitor.get(address)
            assert page.status_code == 200
            assert "106 reports" in text_of(page)
            found += report_ids_in(page.text)
            address = link(page.text, "Next page")
        reported = [each for each in found if each.startswith("report-")]
        assert len(found) == 106
        assert reported == [f"report-{number}" for number in reversed(numbers)]
        assert "applied" in text_of(page)
        oldest = visitor.get(f"/operations/{OPERATION}/devices/{DEVICE}/reports?ordering=created_at&limit=2")
        assert "report-1" in report_ids_in(oldest.text)
        beyond = visitor.get(f"/operations/{OPERATION}/devices/{DEVICE}?offset=1000")
        assert "No reports on this page" in text_of(beyond)


def test_dead_letters_of_a_device_are_for_those_who_may_see_them(deviceops: Deviceops) -> None:
    tokens, setting = {}, ""
    for name, scopes in (
        ("all", SCOPES),
        ("reader", ("read:operation", "read:device")),
        ("of operations", ("read:operation",)),
        ("of devices", ("read:device",)),
    ):
        tokens[name], setting = token(deviceops.with_settings(api_tokens=setting), name, scopes)
    ingest(
        deviceops,
        announced(OPERATION),
        report("SUCCESS", 1),
        report("FAILURE", 2),
        report("SUCCESS", 3, UUID(int=0x0B)),
    )
    with serving(deviceops.with_settings(api_tokens=setting)) as server:
        with signed_in(server, tokens["all"]) as visitor:
            page = visitor.get(f"/devices/{DEVICE}")
            assert [*re.findall(r'id="letter-(\d+)"', page.text)] == ["2", "1"]
            assert "conflict" in text_of(page)
            parked = visitor.get(f"/operations/{UUID(int=0x0B)}/devices/{DEVICE}")
            assert parked.status_code == 404
            assert "is not registered for this operation" in text_of(parked)
            assert re.findall(r'id="letter-(\d+)"', parked.text) == ["2"]
            of_pair = visitor.get(f"/operations/{OPERATION}/devices/{DEVICE}")
            assert re.findall(r'id="letter-(\d+)"', of_pair.text) == ["1"]
            assert re.findall(r'id="letter-(\d+)"', visitor.get(f"/devices/{DEVICE}/dead-letters").text) == [
                "2",
                "1",
            ]
            assert "No dead letter names this device" in text_of(visitor.get(f"/devices/{OTHER}"))
        with signed_in(server, tokens["reader"]) as visitor:
            for address in (f"/devices/{DEVICE}", f"/operations/{OPERATION}/devices/{DEVICE}"):
                page = visitor.get(address)
                assert page.status_code == 200
                assert "letter-" not in page.text
                assert "conflict" not in text_of(page)
            assert visitor.get(f"/devices/{DEVICE}/dead-letters").status_code == 403
        with signed_in(server, tokens["of operations"]) as visitor:
            page = visitor.get(f"/operations/{OPERATION}/devices/{DEVICE}")
            assert page.status_code == 200
            assert f'href="/devices/{DEVICE}"' not in page.text
            assert visitor.get(f"/devices/{DEVICE}").status_code == 403
        with signed_in(server, tokens["of devices"]) as visitor:
            for path in (
                f"/devices/{DEVICE}",
                f"/devices/{DEVICE}/operations",
                f"/operations/{OPERATION}/devices/{DEVICE}",
            ):
                assert visitor.get(path).status_code == 403


def test_what_is_not_known_is_404_until_it_is(server: Server, deviceops_at_server: Deviceops) -> None:
    addresses = f"/devices/{DEVICE}", f"/operations/{OPERATION}/devices/{DEVICE}"
    with signed_in(server) as visitor:
        for address, words in zip(addresses, ("No operation has this device", "is not registered"), strict=True):
            page = visitor.get(address)
            assert page.status_code == 404
            assert words in text_of(page)
            assert f"topic=device%2F{DEVICE}" in page.text  # appears by itself
        ingest(deviceops_at_server, announced(OPERATION))
        assert [visitor.get(address).status_code for address in addresses] == [200, 200]
        assert visitor.get(f"/operations/{NOWHERE}/devices/{DEVICE}").status_code == 404
        assert visitor.get(f"/operations/{OPERATION}/devices/{NOWHERE}").status_code == 404


@pytest.mark.parametrize("address", ["/devices/zzzz", "/operations/zzzz/devices/1", "/devices/{}?cursor=zzzz"])
def test_a_wrong_address_is_an_error_page(server: Server, address: str) -> None:
    with signed_in(server) as visitor:
        page = visitor.get(address.format(DEVICE))
        assert page.status_code in (400, 404)
        assert "<h1>" in page.text


def test_text_from_outside_is_text(server: Server, deviceops_at_server: Deviceops) -> None:
    ingest(
        deviceops_at_server,
        announced(OPERATION, operation_type=HOSTILE[:200]),
        {
            **report_body(
                OPERATION, DEVICE, "FAILURE", report_id=HOSTILE, reason=f"{HOSTILE}\0", occurred_at=HOSTILE
            ),
            "service_id": HOSTILE,
            "operation_type": None,
        },
        {**report_body(OPERATION, DEVICE, "SUCCESS", reason=HOSTILE), "service_id": HOSTILE},
    )
    with signed_in(server) as visitor:
        for address in (f"/devices/{DEVICE}", f"/operations/{OPERATION}/devices/{DEVICE}"):
            page = visitor.get(address)
            assert page.status_code == 200
            assert "&lt;script&gt;alert(1)" in page.text
            assert "cannot be read" in text_of(page)
            assert not re.search(r"<(script|img)(?! src=\"/static/)", page.text)
            assert "{{7*7}}" in unescape(page.text)
            for character in "\x1b\u202e\0":
                assert character not in page.text
