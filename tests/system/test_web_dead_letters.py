"""The pages of dead letters: what they show is what the database has, and each act does what its form says."""

import gzip
import json
import re
import time
from dataclasses import replace
from html import unescape
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import httpx

from tests.support.command import Deviceops
from tests.support.dead_letter_pages import PAGE, count_of, follow, groups, ids_of, page, statuses
from tests.support.paging import Visitor, signed_in, text_of
from tests.support.rejecting import KNOWN, NEW, an_evening, of, rows, send
from tests.support.sending import DEVICES, OPERATIONS, message, report_body
from tests.support.serving import Server, serving, token
from worker.model.messages import Origin

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&</textarea>\u202e\x07{{777777*777777}}"


def test_each_page_of_the_list_has_other_rows_both_ways(visitor: Visitor, url: str) -> None:
    send(url, [of(f"{number}".encode() * 2) for number in range(120)])
    everything = [id_ for (id_,) in rows(url, "SELECT id FROM dead_letters ORDER BY id DESC")]

    def links(response: httpx.Response) -> dict[str, str]:
        return {
            rel: unescape(href) for href, rel in re.findall(r'<a href="([^"]*)" rel="(prev|next)">', response.text)
        }

    forth, address = [], f"{PAGE}?reason=malformed"
    while True:
        shown = page(visitor, address)
        assert page(visitor, _part_of(shown)).text.strip() in shown.text
        forth.append(ids_of(shown))
        if "next" not in links(shown):
            break
        address = links(shown)["next"]
    assert [len(each) for each in forth] == [50, 50, 20]
    assert [id_ for ids in forth for id_ in ids] == everything
    back = [ids_of(shown)]
    while "prev" in links(shown):
        shown = page(visitor, links(shown)["prev"])
        back.append(ids_of(shown))
    assert back == forth[::-1]
    assert parse_qs(urlsplit(links(shown)["next"]).query)["reason"] == ["malformed"]


def _part_of(response: httpx.Response) -> str:
    """The address of the part of a page that is renewed."""
    found = re.search(r' hx-get="([^"]*)"', response.text)
    assert found is not None
    return unescape(found[1])


def test_filters_are_those_of_the_api_and_a_fault_is_shown_beside_its_field(
    visitor: Visitor, url: str, server: Server
) -> None:
    an_evening(url, parked=3, untrusted=4, conflicts=5, malformed=6)
    operation, device = rows(url, "SELECT operation_id, device_id FROM dead_letters WHERE reason = 'conflict'")[0]
    with server.client() as api:
        for query in (
            {"reason": "conflict"},
            {"service_id": NEW},
            {"operation_id": str(_uuid(operation))},
            {"device_id": str(_uuid(device))},
            {"detail": "state: <text> is not a device-operation state <text>"},
            {"detail": "SUCCESS after FAILURE contradicts it"},
            {"since": "2027-01-01T00:00:00Z"},
            {"until": "2027-01-01T00:00:00Z", "reason": "malformed"},
            {"status": "all"},
            {"status": "resolved"},
        ):
            expected = api.get("/v0/dead-letters/", params={**query, "limit": "500"}).json()["content"]
            shown = visitor.get(PAGE, params=query)
            assert count_of(shown) == expected["count"], query
            assert sorted(ids_of(shown)) == sorted(each["id"] for each in expected["results"]), query
    shown = visitor.get(PAGE, params={"operation_id": "no id", "since": "yesterday", "service_id": KNOWN})
    assert shown.status_code == HTTPStatus.BAD_REQUEST
    for name in ("operation_id", "since"):
        assert f'id="{name}-fault"' in shown.text
    assert 'value="no id"' in shown.text
    assert 'value="yesterday"' in shown.text
    assert f'value="{KNOWN}"' in shown.text
    assert 'id="service_id-fault"' not in shown.text
    for path in ("/dry-run", "/discard", "/restore", "/rows"):
        assert visitor.get(f"{PAGE}{path}", params={"reason": "no"}).status_code == HTTPStatus.BAD_REQUEST
    assert visitor.act(f"{PAGE}/replay?reason=no", limit="10").status_code == HTTPStatus.BAD_REQUEST
    assert visitor.act(f"{PAGE}/replay?raeson=conflict", limit="10").status_code == HTTPStatus.BAD_REQUEST
    assert visitor.act(f"{PAGE}/replay?reason=conflict").status_code == HTTPStatus.BAD_REQUEST, "no number"


def _uuid(value: object) -> UUID:
    return value if isinstance(value, UUID) else UUID(str(value))


def test_one_is_shown_dry_run_replayed_discarded_and_restored(visitor: Visitor, url: str) -> None:
    operation, device = OPERATIONS[0], DEVICES[0]
    send(url, [of(report_body(operation, device, "SUCCESS", service_id=NEW))], is_strict=True)
    send(url, [of(report_body(operation, device, "CREATED"))])
    [id_] = ids_of(page(visitor))
    shown = page(visitor, f"{PAGE}/{id_}")
    text = text_of(shown)
    for part in (
        str(operation),
        str(device),
        NEW,
        "unknown_service",
        '"state": "SUCCESS"',
        "received",
        "the worker",
    ):
        assert part in text, part
    assert f'href="/operations/{operation}"' in shown.text
    assert f'href="/devices/{device}"' in shown.text
    assert "applied" in text_of(page(visitor, f"{PAGE}/{id_}/dry-run"))
    assert statuses(url) == {"open": 1}

    for because in ("", " \t "):
        refused = visitor.act(f"{PAGE}/{id_}/discard", because=because)
        assert refused.status_code == HTTPStatus.BAD_REQUEST
        assert 'id="because-fault"' in refused.text
    too_long = visitor.act(f"{PAGE}/{id_}/discard", because="x" * 5_000)
    assert "x" * 5_000 in too_long.text, "what was typed is kept"
    assert statuses(url) == {"open": 1}
    assert "discarded" in text_of(follow(visitor, visitor.act(f"{PAGE}/{id_}/discard", because="a test")))
    assert statuses(url) == {"discarded": 1}
    again = text_of(follow(visitor, visitor.act(f"{PAGE}/{id_}/discard", because="again")))
    assert "was not open any more" in again
    assert "only an open one can be replayed" in text_of(follow(visitor, visitor.get(f"{PAGE}/{id_}/dry-run")))

    restored = text_of(follow(visitor, visitor.act(f"{PAGE}/{id_}/restore")))
    assert "restored" in restored
    assert "a test" in restored, "the history has the reason"
    assert "not restored" in text_of(follow(visitor, visitor.act(f"{PAGE}/{id_}/restore")))
    assert "was processed: applied" in text_of(follow(visitor, visitor.act(f"{PAGE}/{id_}/replay")))
    assert statuses(url) == {"resolved": 1}
    assert "nothing was done" in text_of(follow(visitor, visitor.act(f"{PAGE}/{id_}/replay")))
    acts = rows(url, "SELECT who, action, target, request_id FROM audit_log ORDER BY id")
    words = ["discard", "discard", "restore", "restore", "replay", "replay"]
    assert [(who, action, target) for who, action, target, _ in acts if action != "sign-in"][-6:] == [
        ("tests", f"dead-letter.{word}", str(id_)) for word in words
    ]
    assert all(request_id for *_, request_id in acts)
    actors = rows(url, "SELECT actor FROM dead_letter_history WHERE action <> 'received'")
    assert {actor for (actor,) in actors} == {"tests"}


def test_a_body_is_corrected_and_its_fault_is_shown_beside_the_text_that_is_kept(
    visitor: Visitor, url: str
) -> None:
    operation, device = OPERATIONS[0], DEVICES[0]
    send(url, [of(report_body(operation, device, "CREATED"))])
    body = report_body(operation, device, "FINE", service_id="<b>", report_id="mine")
    send(url, [of(body)])
    [id_] = ids_of(page(visitor))
    form = page(visitor, f"{PAGE}/{id_}/edit")
    found = re.search(r"<textarea[^>]*>\n(.*?)</textarea>", form.text, re.DOTALL)
    assert found is not None
    present = unescape(found[1])
    assert json.loads(present) == body

    unchanged = visitor.act(f"{PAGE}/{id_}/edit", body=present.replace("\n", "\r\n"), type="")
    assert (unchanged.status_code, "nothing was changed" in unchanged.text) == (HTTPStatus.BAD_REQUEST, True)
    broken = present.replace('"FINE"', "SUCCESS").replace("\n", "\r\n")
    refused = visitor.act(f"{PAGE}/{id_}/edit", body=broken, type="")
    assert refused.status_code == HTTPStatus.BAD_REQUEST
    line = next(number for number, text in enumerate(broken.split("\r\n"), 1) if "SUCCESS" in text)
    assert f"at line {line} column" in text_of(refused)
    assert f'<li value="{line}" class="bad">' in refused.text
    kept = re.search(r"<textarea[^>]*>\n(.*?)</textarea>", refused.text, re.DOTALL)
    assert kept is not None
    assert unescape(kept[1]) == broken.replace("\r\n", "\n")
    field = visitor.act(f"{PAGE}/{id_}/edit", body=present.replace("FINE", "GOOD"), type="")
    assert "state: &#39;GOOD&#39; is not" in field.text
    kind = visitor.act(f"{PAGE}/{id_}/edit", body=present, type="no.such")
    assert "no.such" in text_of(kind)
    assert statuses(url) == {"open": 1}

    done = visitor.act(f"{PAGE}/{id_}/edit", body=present.replace("FINE", "SUCCESS"), type="")
    shown = text_of(follow(visitor, done))
    assert "is replaced by this one" in shown
    assert "applied" in shown
    assert statuses(url) == {"resolved": 2}
    copy = int(done.headers["location"].rpartition("/")[2])
    assert f'href="/dead-letters/{copy}"' in page(visitor, f"{PAGE}/{id_}").text
    assert f'href="/dead-letters/{id_}"' in page(visitor, f"{PAGE}/{copy}").text
    assert "only an open one" in text_of(follow(visitor, visitor.get(f"{PAGE}/{id_}/edit")))
    again = visitor.act(f"{PAGE}/{id_}/edit", body=present.replace("FINE", "FAILURE"), type="")
    assert (again.status_code, "only an open one" in again.text) == (HTTPStatus.BAD_REQUEST, True)


def test_bodies_that_are_no_json_are_shown_and_downloaded_as_they_are(visitor: Visitor, url: str) -> None:
    bodies = [b"\xff\x00\x01binary", HOSTILE.encode(), b"", b"[" + b"1," * 60_000 + b"1]", b"\x1f\x8b\x08"]
    send(url, [of(body) for body in bodies])
    for id_, body in rows(url, "SELECT id, body FROM dead_letters"):
        shown = page(visitor, f"{PAGE}/{id_}")
        assert len(shown.content) < 150_000
        if body:
            download = visitor.get(f"{PAGE}/{id_}/body")
            assert download.content == body
            assert download.headers["content-disposition"].startswith("attachment")
        page(visitor, f"{PAGE}/{id_}/edit")
    text = [text_of(page(visitor, f"{PAGE}/{id_}")) for id_ in ids_of(page(visitor))]
    assert any("ff 00 01 62 69 6e 61 72 79" in each for each in text)
    assert any("The body is empty" in each for each in text)


def test_text_from_outside_is_never_markup(visitor: Visitor, url: str) -> None:
    operation, device = OPERATIONS[0], DEVICES[0]
    send(url, [of({**report_body(operation, device, HOSTILE), "service_id": HOSTILE, "reason": HOSTILE})])
    send(url, [of(report_body(operation, device, "SUCCESS", service_id=HOSTILE), HOSTILE)])
    send(url, [of(report_body(operation, device, "SUCCESS", service_id=HOSTILE))], is_strict=True)
    ids = ids_of(page(visitor))
    assert len(ids) == 3
    visitor.act(f"{PAGE}/notes", text=HOSTILE)
    visitor.act(f"{PAGE}/{ids[0]}/discard", because=HOSTILE)
    addresses = [PAGE, f"{PAGE}?status=all", f"{PAGE}/dry-run", f"{PAGE}/discard", f"{PAGE}/restore"]
    addresses += [f"{PAGE}/{id_}{what}" for id_ in ids for what in ("", "/edit", "/discard", "/dry-run", "/facts")]
    addresses += [address for _, address in groups(page(visitor), "detail").values()]
    addresses += [str(httpx.URL(PAGE, params={"service_id": HOSTILE, "detail": HOSTILE[:200]}))]
    for address in addresses:
        shown = visitor.get(address)
        assert shown.status_code in (HTTPStatus.OK, HTTPStatus.SEE_OTHER, HTTPStatus.BAD_REQUEST), address
        for markup in ("<script>alert", "<img", '</textarea>"', "onerror=alert(1)>"):
            assert markup not in shown.text, address
        assert "604937061729" not in shown.text, address
    shown = page(visitor, f"{PAGE}/{ids[1]}/edit")
    assert shown.text.count("</textarea>") == 1
    kept = visitor.act(f"{PAGE}/{ids[1]}/edit", body=HOSTILE, type=HOSTILE)
    assert kept.status_code == HTTPStatus.BAD_REQUEST
    assert kept.text.count("</textarea>") == 1


def test_notes_are_kept_on_a_group_with_who_and_when(visitor: Visitor, url: str) -> None:
    an_evening(url, parked=2, untrusted=3, conflicts=4, malformed=5)
    [(_, address)] = [each for each in groups(page(visitor), "detail").values() if each[0] == 4]
    noted = address.replace(PAGE, f"{PAGE}/notes", 1)
    refused = visitor.act(noted, text="  ")
    assert (refused.status_code, 'id="note-fault"' in refused.text) == (HTTPStatus.BAD_REQUEST, True)
    too_long = visitor.act(noted, text="y" * 2_001)
    assert "y" * 2_001 in too_long.text
    assert rows(url, "SELECT count(*) FROM dead_letter_notes") == [(0,)]

    shown = text_of(follow(visitor, visitor.act(noted, text="known since Monday\r\nsee ticket 7")))
    assert "The note was added." in shown
    assert "known since Monday see ticket 7" in shown
    assert re.search(r"tests , \d{4}-\d\d-\d\d", shown)
    [(filter_, who, text)] = rows(url, "SELECT filter, who, text FROM dead_letter_notes")
    assert (who, text) == ("tests", "known since Monday\nsee ticket 7")
    assert filter_ == urlsplit(address).query
    assert "known since Monday" in text_of(page(visitor)), "beside the group"
    assert "known since Monday" in text_of(page(visitor, f"{address}&status=all"))
    [id_, *_] = ids_of(page(visitor, address))
    assert "known since Monday" in text_of(page(visitor, f"{PAGE}/{id_}"))

    [note] = re.findall(r'action="(/dead-letters/notes/\d+/remove)"', page(visitor, address).text)
    assert "The note was removed." in text_of(follow(visitor, visitor.act(note)))
    assert visitor.act(note).status_code == HTTPStatus.NOT_FOUND
    assert rows(url, "SELECT count(*) FROM dead_letter_notes") == [(0,)]
    assert "known since Monday" in str(rows(url, "SELECT detail FROM audit_log WHERE action LIKE '%remove-note'"))


def test_who_lacks_the_scope_sees_and_changes_nothing(deviceops: Deviceops) -> None:
    url = deviceops.settings["database_url"]
    an_evening(url, parked=1, untrusted=1, conflicts=1, malformed=1)
    text, setting = token(deviceops, "reader", ["read:operation", "read:device", "update:operation"])
    paths = ["", "/rows", "/dry-run", "/discard", "/restore", "/1", "/1/facts", "/1/edit", "/1/discard", "/1/body"]
    acts = [
        "/replay",
        "/dry-run",
        "/discard",
        "/restore",
        "/notes",
        "/notes/1/remove",
        f"/jobs/{uuid4().hex}/stop",
    ]
    acts += ["/1/replay", "/1/discard", "/1/restore", "/1/edit"]
    with serving(deviceops.with_settings(api_tokens=setting)) as server:
        with signed_in(server, text) as reader:
            for path in paths:
                assert reader.get(f"{PAGE}{path}").status_code == HTTPStatus.FORBIDDEN, path
            for path in acts:
                given = {"limit": "10", "because": "x", "text": "x", "body": "{}", "type": ""}
                assert reader.act(f"{PAGE}{path}", **given).status_code == HTTPStatus.FORBIDDEN, path
            assert 'href="/dead-letters"' not in reader.get("/").text
        with signed_in(server) as visitor:
            for path in acts:
                response = visitor.post(f"{PAGE}{path}", data={"limit": "10", "because": "x", "text": "x"})
                assert response.status_code == HTTPStatus.FORBIDDEN, "without its origin"
            headers = {"Accept": "text/html"}
            for path in ("/99999", "/99999/edit", "/99999/facts", "/x", "/-1", "/jobs/x", f"/{2**63}"):
                response = visitor.get(f"{PAGE}{path}", headers=headers)
                assert response.status_code in (HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST), path
                assert response.headers["content-type"].startswith("text/html"), path
            for path in ("replay", "discard", "restore", "edit"):
                response = visitor.act(f"{PAGE}/99999/{path}", because="x", body="{}")
                assert response.status_code in (HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST), path
    assert set(statuses(url)) == {"open"}
    assert rows(url, "SELECT count(*) FROM audit_log WHERE action LIKE 'dead-letter%'") == [(0,)]


def test_the_command_line_selects_by_a_masked_detail_too(deviceops_on_sqlite: Deviceops) -> None:
    deviceops = deviceops_on_sqlite
    an_evening(deviceops.settings["database_url"], parked=1, untrusted=2, conflicts=3, malformed=4)
    masked = "state: <text> is not a device-operation state <text>"
    assert len(deviceops.document("dead-letters", "list", "--detail", masked)) == 4
    assert len(deviceops.document("dead-letters", "list", "--detail", "SUCCESS after FAILURE contradicts it")) == 3
    assert deviceops.document("dead-letters", "list", "--detail", "SUCCESS after") == []


def test_what_would_be_huge_when_indented_is_shown_as_it_is(visitor: Visitor, url: str) -> None:
    deep = b'{"foo":' + b"[" * 190 + b"0," * 100_000 + b"0" + b"]" * 190 + b"}"
    packed = message(gzip.compress(b'{"foo":"' + b"x" * 3_000_000 + b'"}'), message_id="packed")
    origin = Origin(properties={"content_encoding": "gzip"})
    send(url, [of(deep), replace(packed, origin=lambda: origin)])
    edits: list[httpx.Response] = []
    for id_ in ids_of(page(visitor)):
        began = time.monotonic()
        shown = page(visitor, f"{PAGE}/{id_}")
        assert time.monotonic() - began < 2
        assert len(shown.content) < 200_000
        edits.append(visitor.get(f"{PAGE}/{id_}/edit"))
        assert len(edits[-1].content) < 500_000
    assert sorted(each.status_code for each in edits) == [200, 303]  # unpacked, the other is too large


def test_a_group_of_a_long_filter_takes_no_note(visitor: Visitor, url: str) -> None:
    an_evening(url, parked=1, untrusted=1, conflicts=1, malformed=1)
    long = {"detail": 200 * "\U0001f4a5", "service_id": 200 * "\u6f22", "message_id": 200 * "\u5b57"}
    refused = visitor.act(str(httpx.URL(f"{PAGE}/notes", params=long)), text="noted")
    assert "This filter is too long for a note" in text_of(refused)
