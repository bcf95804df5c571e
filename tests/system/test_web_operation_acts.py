"""What is done on the page of an operation: each act does what its form says."""

from html import unescape
from uuid import UUID, uuid4

import httpx
import pytest

from tests.support.command import Deviceops
from tests.support.operation_page import (
    ADDRESS,
    API,
    DEVICES,
    OPERATION,
    WRITES,
    acts,
    announced,
    content,
    devices_on,
    fields_of,
    lines_of,
    links,
    report,
    text_of,
)
from tests.support.paging import Visitor, signed_in
from tests.support.rejecting import rows
from tests.support.sending import announcement_body
from tests.support.serving import NOWHERE, serving, token
from worker.pages.operation.announce import MOST


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

    more = visitor.act(f"{ADDRESS}/announce", devices=str(UUID(int=7)))
    assert more.status_code == 303
    again = visitor.act(address, key=key)
    assert "This was sent before: nothing more was cancelled." in text_of(visitor.get(again.headers["Location"]))
    visitor.act(address, key="another")
    once_more = visitor.act(address, key="a third")
    assert "Nothing was left to cancel" in text_of(visitor.get(once_more.headers["Location"]))
    last, second, _, first = acts(roll_out)
    assert (first.who, first.action, first.detail["reason"]) == ("tests", "operation.cancel", "<b>enough</b>")
    assert first.request_id
    assert first.detail["outcome"] == "cancelled 22 device operations"
    assert second.detail["outcome"] == "cancelled 1 device operation"
    assert last.detail["outcome"] == "cancelled 0 device operations"
    assert "Nothing is left to cancel" in text_of(visitor.get(address))


def test_what_no_database_keeps_is_not_in_the_audit_log(roll_out: Deviceops, visitor: Visitor) -> None:
    visitor.act(f"{ADDRESS}/cancel", key="a\0key", reason=f"no\0more{'x' * 5_000}")
    url = roll_out.settings["database_url"]
    [(reason, key)] = rows(
        url, "SELECT detail->>'reason', detail->>'key' FROM audit_log WHERE action LIKE '%cancel'"
    )
    assert reason.startswith("no\ufffdmorex")
    assert len(reason) < 5_000
    assert "\0" not in key


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
    visitor.act(address, key=key, devices=typed, expected="80")
    assert "This was announced before: nothing has changed." in text_of(visitor.get(ADDRESS))
    visitor.act(address, key=key, devices=new[2])  # what was changed after going back in the browser
    assert "Announced 1 device, 1 of them new." in text_of(visitor.get(ADDRESS))
    assert [each.detail["outcome"] for each in acts(roll_out)] == ["announced", "duplicate", "announced"]


@pytest.mark.usefixtures("roll_out")
def test_as_many_devices_as_the_form_says_are_announced_at_a_time(api: httpx.Client, visitor: Visitor) -> None:
    many = "\r\n".join(str(UUID(int=number + (1 << 100))) for number in range(MOST))

    done = visitor.act(f"{ADDRESS}/announce", devices=many)

    assert done.status_code == 303, done.text
    assert content(api, f"{API}devices/")["count"] == len(DEVICES) + MOST


def test_an_operation_without_a_type_is_given_one_with_the_announcement(
    deviceops_at_server: Deviceops, api: httpx.Client, visitor: Visitor
) -> None:
    deviceops_at_server.out("ingest", "-", lines=lines_of([report(DEVICES[0], "CREATED")]))
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
    lines = lines_of([announced(announcement_body(OPERATION, DEVICES[:2])), report(UUID(int=1), "SUCCESS")])
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
