"""The web page as `deviceops serve` serves it: who may see it, what it shows, and what of it browsers may keep."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from html import unescape
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit
from uuid import UUID

import httpx
import pytest
from sqlalchemy import make_url

from tests.support.command import Deviceops
from tests.support.databases import NewDatabase
from tests.support.paging import COOKIE, Visitor, signed_in, text_of
from tests.support.seed import OPERATION
from tests.support.sending import message, process, report_body
from tests.support.serving import DEVICES, SCOPES, TIMEOUT, Server, announce, put, serving, token
from worker.model.text import one_line
from worker.store import audit
from worker.store.database import Database

PAGES = ("/", "/operations/rows", "/search", "/search?q=zzzz", "/sign-in", "/nowhere", "/?limit=x")
HTML = {"Accept": "text/html,application/xhtml+xml"}
IN_TIME = 1
"""Seconds from a commit to the page."""
OPEN_PAGES = 50
POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"


@pytest.fixture
def server(deviceops: Deviceops) -> Iterator[Server]:
    """A server that knows a token; once on each kind of database."""
    with serving(deviceops) as server:
        yield server


@pytest.fixture
def on_sqlite(deviceops_on_sqlite: Deviceops) -> Iterator[Server]:
    """The same on SQLite, for what no database changes."""
    with serving(deviceops_on_sqlite) as server:
        yield server


def test_who_has_not_signed_in_is_led_to_the_form_and_then_to_what_was_asked_for(server: Server) -> None:
    with Visitor(server) as visitor:
        asked = visitor.get("/?state=FAILED&operation_type=a+b")
        assert asked.status_code == 303
        address = urlsplit(asked.headers["Location"])
        assert (address.path, parse_qs(address.query)) == (
            "/sign-in",
            {"next": ["/?state=FAILED&operation_type=a+b"]},
        )
        form = visitor.get(asked.headers["Location"])
        assert 'value="/?state=FAILED&amp;operation_type=a+b"' in form.text

        done = visitor.sign_in(server.token, "/?state=FAILED&operation_type=a+b")

        assert (done.status_code, done.headers["Location"]) == (303, "/?state=FAILED&operation_type=a+b")
        assert "No operation matches" in text_of(visitor.get(done.headers["Location"]))
        assert visitor.get("/sign-in?next=/search").headers["Location"] == "/search"
        part = httpx.get(
            f"{server.url}/operations/rows",
            headers={"HX-Request": "true", "HX-Current-URL": f"{server.url}/?state=FAILED"},
            trust_env=False,
        )
        assert part.headers["HX-Redirect"] == "/sign-in?next=%2F%3Fstate%3DFAILED"


def test_the_cookie_is_out_of_reach_and_over_https_secure(on_sqlite: Server) -> None:
    with Visitor(on_sqlite) as visitor:
        cookie = visitor.sign_in(on_sqlite.token).headers["Set-Cookie"]
        assert cookie.startswith(f"{COOKIE}=")
        attributes = {each.strip().lower() for each in cookie.split(";")[1:]}
        assert attributes == {"httponly", "max-age=43200", "path=/", "samesite=strict"}
        assert on_sqlite.token not in cookie

        by_proxy = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "deviceops.example"}
        origin = {"Origin": "https://deviceops.example"}
        fields = {"token": on_sqlite.token}
        secure = visitor.post("/sign-in", data=fields, headers={**by_proxy, **origin}).headers["Set-Cookie"]
        assert "secure" in {each.strip().lower() for each in secure.split(";")}


def test_signing_out_ends_the_session_for_a_copy_of_the_cookie_too(server: Server) -> None:
    with signed_in(server) as visitor, Visitor(server) as thief:
        thief.cookies.update(visitor.cookies)
        assert thief.get("/").status_code == 200
        assert visitor.act("/sign-out").headers["Location"] == "/sign-in"
        for each in (visitor, thief):
            assert each.get("/").status_code == 303
            assert each.get("/events?topic=operations", headers={"Accept": "text/event-stream"}).status_code == 401


def test_a_wrong_token_signs_nobody_in_and_too_many_are_refused_but_a_right_one_never_is(
    on_sqlite: Server,
) -> None:
    with Visitor(on_sqlite) as visitor:
        for wrong in ("", "x", on_sqlite.token[:-1], f"{on_sqlite.token}x", "é\0\n"):
            refused = visitor.sign_in(wrong)
            assert refused.status_code == 401
            assert "not known" in text_of(refused)
            assert COOKIE not in visitor.cookies
        statuses = [visitor.sign_in("wrong").status_code for _ in range(10)]
        assert statuses[-1] == 429
        assert visitor.sign_in(f" {on_sqlite.token}\n").status_code == 303
    on_sqlite.stop()
    assert on_sqlite.token not in json.dumps(on_sqlite.log)


def test_scopes_decide_what_is_shown(deviceops_on_sqlite: Deviceops) -> None:
    tokens, setting = {}, ""
    for scope in SCOPES:
        tokens[scope], setting = token(deviceops_on_sqlite.with_settings(api_tokens=setting), scope, [scope])
    with serving(deviceops_on_sqlite.with_settings(api_tokens=setting)) as server:
        for scope, text_ in tokens.items():
            with signed_in(server, text_) as visitor:
                for path in ("/", "/operations/rows", "/search", "/events?topic=operation/x"):
                    response = visitor.get(path)
                    if scope == "read:operation" and path != "/events?topic=operation/x":
                        assert response.status_code == 200
                    elif path != "/events?topic=operation/x":
                        assert response.status_code == 403
                        assert f"token '{scope}' lacks scope read:operation" in text_of(response)
                    else:
                        assert response.status_code == 400
                listed = text_of(visitor.get("/") if scope == "read:operation" else visitor.get("/search"))
                assert ("Dead letters" in listed) == (scope == "admin:dead-letters")
                topics = {"operations": "read:operation", "dead-letters": "admin:dead-letters"}
                for topic, needed in topics.items():
                    head = visitor.head(f"/events?topic={topic}")
                    assert head.status_code == (200 if scope == needed else 403)


FOREIGN = [
    {},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "{own}", "Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "http://localhost:1"},
]


def test_a_form_of_another_page_changes_nothing(on_sqlite: Server) -> None:
    with signed_in(on_sqlite) as visitor:
        for headers in FOREIGN:
            named = {name: value.format(own=on_sqlite.url) for name, value in headers.items()}
            for path in ("/sign-out", "/sign-in"):
                refused = visitor.post(path, data={"token": on_sqlite.token}, headers=named)
                assert refused.status_code == 403, headers
                assert "Set-Cookie" not in refused.headers
        assert visitor.get("/").status_code == 200


def test_a_link_from_another_page_leads_to_the_page_although_the_browser_holds_the_cookie_back(
    on_sqlite: Server,
) -> None:
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    with Visitor(on_sqlite) as visitor:
        hop = visitor.get("/?state=FAILED&operation_type=%22%3E", headers=followed)
        assert hop.status_code == 200
        assert 'content="0; url=/?state=FAILED&amp;operation_type=%22%3E"' in hop.text
        assert "Operations" not in hop.text
        for headers in ({**followed, "Sec-Fetch-Dest": "iframe"}, {**followed, "Sec-Fetch-Mode": "no-cors"}):
            assert visitor.get("/", headers=headers).status_code == 303


def test_without_tokens_this_machine_alone_sees_it_and_signs_nothing_in(deviceops_on_sqlite: Deviceops) -> None:
    alone = deviceops_on_sqlite.with_settings(http_port="0", http_probe_port="0")
    with alone.running("serve") as process:
        server = Server(process, "none")
        with Visitor(server) as visitor:
            assert "Sign out" not in text_of(visitor.get("/"))
            assert visitor.get("/sign-in").headers["Location"] == "/"
            assert visitor.sign_in("x").status_code == 404
            assert visitor.act("/sign-out").status_code == 303
            for headers in ({"Host": "rebound.example"}, {"X-Forwarded-For": "203.0.113.5"}, {"Via": "1.1 proxy"}):
                refused = visitor.get("/", headers=headers)
                assert refused.status_code == 403
                assert "no tokens are configured" in text_of(refused)
            followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
            assert "refresh" in visitor.get("/", headers=followed).text
            assert visitor.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
        assert server.stop() == 0


def test_every_page_has_a_policy_without_exceptions_and_names_no_other_host(on_sqlite: Server) -> None:
    with signed_in(on_sqlite) as visitor:
        for path in PAGES:
            response = visitor.get(path, headers=HTML)
            assert response.headers["Content-Security-Policy"] == POLICY, path
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["Referrer-Policy"] == "same-origin"
            if path != "/nowhere":
                assert response.headers["Cache-Control"] == "no-store"
            assert re.findall(r"""(?:src|href|action|url|hx-get)=["'](?!/(?!/)|#)""", response.text) == [], path
            assert "://" not in response.text
            assert not re.findall(r"<[^>]*\s(?:style|on\w+)=|<style", response.text)


def test_files_are_kept_for_good_at_addresses_of_their_content(on_sqlite: Server) -> None:
    with signed_in(on_sqlite) as visitor:
        addresses = re.findall(r'(?:src|href)="(/static/[^"]+)"', visitor.get("/").text)
        assert len(addresses) == 5
        size = len(visitor.get("/").content)
        for address in addresses:
            found = visitor.get(address)
            assert found.headers["Cache-Control"] == "public, max-age=31536000, immutable"
            assert found.headers["Content-Encoding"] == "gzip"
            size += int(found.headers["Content-Length"])
            plain = visitor.get(address, headers={"Accept-Encoding": "identity"})
            assert plain.content == found.content
        assert size < 60_000
        digest = addresses[0].split("/")[2]
        for wrong in (
            f"/static/{digest}/page.js",
            f"/static/{digest}/README.md",
            f"/static/{digest}/%2e%2e%2fapp.py",
        ):
            assert visitor.get(wrong).status_code == 404


def test_the_api_answers_as_before(on_sqlite: Server) -> None:
    with on_sqlite.client() as api:
        assert api.get("/nowhere").json() == {"code": 404, "message": "Not Found", "content": None}
        assert "Content-Security-Policy" not in api.get("/docs").headers
        assert api.get("/v0/nowhere", headers=HTML).json()["code"] == 404
        assert not [path for path in api.get("/openapi.json").json()["paths"] if not path.startswith("/v0/")]
        assert api.get("/").status_code == 303  # a token of the API is no session
        allowed = api.delete("/sign-in")
        assert (allowed.status_code, allowed.headers["Allow"]) == (405, "GET, HEAD, POST")
    with signed_in(on_sqlite) as visitor:
        assert visitor.get("/v0/operations/").status_code == 401


def test_rows_show_what_the_database_has(server: Server) -> None:
    with server.client() as api, signed_in(server) as visitor:
        announce(api, DEVICES[:4])
        put(api, "SUCCESS")
        shown = text_of(visitor.get("/"))
        for expected in (
            "1 operation",
            OPERATION["id"][:8],
            "CONVERGE",
            "DISPATCHING",
            "1 settled well",
            "1 of 4",
        ):
            assert expected in shown
        rows = visitor.get("/operations/rows").text
        assert 'aria-label="1 settled well, 3 open; 4 in all"' in rows
        assert re.findall("<tr.*?</td>", rows, flags=re.DOTALL)[0] in visitor.get("/").text


def test_filters_are_in_the_address_and_pages_keep_them(server: Server) -> None:
    with server.client() as api, signed_in(server) as visitor:
        ids = [f"00000000-0000-4000-8000-00000000000{number}" for number in range(5)]
        for id_ in ids:
            announce(api, DEVICES[:1], id=id_, operation_type="A&B" if id_ != ids[0] else "other")

        def shown(address: str) -> tuple[list[str], dict[str, str]]:
            page = visitor.get(address)
            assert page.status_code == 200, page.text
            links = re.findall(r'<a href="([^"]*)"(?: rel="\w+")?>(\w+) page</a>', page.text)
            found = re.findall(r'href="/operations/([0-9a-f-]{36})"', page.text)
            return found, {name: address.replace("&amp;", "&") for address, name in links}

        assert shown("/")[0] == ids[::-1]
        first, links = shown("/?operation_type=A%26B&limit=2&state=&created_after=2000-01-01T00:00")
        second, more = shown(links["Next"])
        assert [*first, *second] == ids[:0:-1]
        assert "operation_type=A%26B" in links["Next"]
        assert links.keys() == {"Next"}
        assert more.keys() == {"First", "Previous"}
        assert shown(more["Previous"])[0] == shown(more["First"])[0] == first
        assert shown("/?state=FAILED")[0] == []
        assert shown("/?state=RESOLVED,FAILED&state=COMPLETED")[0] == ids[::-1]
        assert shown("/?created_before=2000-01-01T00:00")[0] == []
        for wrong in (
            "/?state=no",
            "/?limit=0",
            "/?cursor=x",
            "/?created_after=never",
            "/?sate=FAILED",
            "/?limit=1&limit=2",
        ):
            assert visitor.get(wrong).status_code == 400, wrong
            part = visitor.get(wrong.replace("/?", "/operations/rows?"), headers={"HX-Request": "true"})
            assert part.status_code == 400
            assert "<html" not in part.text


def test_an_id_or_its_beginning_leads_to_what_it_is_of(server: Server) -> None:
    with server.client() as api, signed_in(server) as visitor:
        announce(api, DEVICES)
        whole = visitor.get("/search", params={"q": f" {OPERATION['id'].upper()} "})
        assert whole.headers["Location"] == f"/operations/{OPERATION['id']}"
        beginning = visitor.get("/search", params={"q": OPERATION["id"][:6]})
        assert beginning.headers["Location"] == f"/operations/{OPERATION['id']}"
        assert visitor.get("/search", params={"q": DEVICES[1]}).headers["Location"] == f"/devices/{DEVICES[1]}"
        several = visitor.get("/search", params={"q": DEVICES[0][:8]})
        assert all(f'href="/devices/{device}"' in several.text for device in DEVICES)
        assert "Nothing has an id" in text_of(visitor.get("/search", params={"q": "<script>"}))
        assert "<script>" not in visitor.get("/search", params={"q": "<script>"}).text
        assert visitor.get("/search", params={"q": "x" * 101}).status_code == 400


HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "'\"><script>alert(1)</script>",
    "</bdi></td></table></main><h1>owned</h1>",
    "{{ 7 * 7 }}{% raw %}",
    "\u202eevitcani\u2066",
    "\x1b[31m\x07",
    "x" * 200,
]


def test_text_from_outside_is_never_markup_and_stays_on_one_line(on_sqlite: Server) -> None:
    with on_sqlite.client() as api, signed_in(on_sqlite) as visitor:
        for number, hostile in enumerate(HOSTILE):
            announce(api, DEVICES[:1], id=f"00000000-0000-4000-8000-00000000000{number}", operation_type=hostile)
        page = visitor.get("/")
        assert page.text.count("<h1") == 1
        assert re.findall(r"<img|<script(?! src=)|onerror=alert\(1\)>", page.text) == []
        shown = re.findall(r'<bdi class="text">(.*?)</bdi>', page.text, flags=re.DOTALL)
        types = [unescape(each) for each in shown if each != "tests"]
        assert types == [one_line(each) for each in reversed(HOSTILE)]
        chosen = visitor.get("/", params={"operation_type": HOSTILE[1]})
        assert re.findall(r'<input id="type" name="operation_type" value="([^"]*)"', chosen.text) == [
            "&#39;&#34;&gt;&lt;script&gt;alert(1)&lt;/script&gt;"
        ]
        assert "1 operation " in text_of(chosen)


async def test_acts_are_recorded_with_who_when_and_the_id_of_the_request(
    deviceops: Deviceops, database_url: str
) -> None:
    def sign_in_and_out() -> str:
        with serving(deviceops) as server, signed_in(server) as visitor:
            return visitor.act("/sign-out").headers["X-Request-ID"]

    request_id = await asyncio.to_thread(sign_in_and_out)
    database = Database(make_url(database_url))
    async with database.read() as connection:
        signed_out, signed_in_ = await audit.latest(connection, 10)
    await database.close()
    assert [(each.who, each.action, each.target) for each in (signed_in_, signed_out)] == [
        ("tests", "sign-in", "tests"),
        ("tests", "sign-out", "tests"),
    ]
    assert signed_out.request_id == request_id
    assert timedelta(0) <= signed_out.at - signed_in_.at < timedelta(minutes=1)


@pytest.mark.alone
async def test_a_commit_of_another_process_is_on_fifty_open_pages_within_a_second(
    deviceops: Deviceops, server: Server
) -> None:
    with server.client() as api:
        announce(api, DEVICES)
    with signed_in(server) as visitor:
        cookie = visitor.cookies[COOKIE]
    part = quote("operations operations /operations/rows?state=DISPATCHING,RESOLVED")
    address = f"/events?topic=operations&part={part}"
    async with AsyncExitStack() as stack:
        pages = [await stack.enter_async_context(open_page(server, address, cookie)) for _ in range(OPEN_PAGES)]
        await asyncio.gather(*(until(page, b"0</data> of") for page in pages))
        await asyncio.sleep(1)
        database = Database(make_url(deviceops.settings["database_url"]))
        bodies = [report_body(UUID(OPERATION["id"]), UUID(device), "SUCCESS") for device in DEVICES[:5]]
        await process(database, [[message(body) for body in bodies]])
        committed = time.monotonic()
        seen = await asyncio.gather(*(until(page, b"5</data> of") for page in pages))
        await database.close()
    assert max(seen) - committed < IN_TIME
    server.stop()
    rendered = [line for line in server.log if line.get("path") == "/operations/rows"]
    assert 2 <= len(rendered) < OPEN_PAGES / 2


@asynccontextmanager
async def open_page(server: Server, address: str, cookie: str) -> AsyncIterator[asyncio.StreamReader]:
    """The stream of an open page."""
    url = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(f"GET {address} HTTP/1.1\r\nHost: {url.netloc}\r\nCookie: {COOKIE}={cookie}\r\n\r\n".encode())
    try:
        yield reader
    finally:
        writer.close()


async def until(page: asyncio.StreamReader, expected: bytes) -> float:
    """When a page shows something."""
    async with asyncio.timeout(TIMEOUT):
        while expected not in await page.readuntil(b"\n"):
            pass
    return time.monotonic()


@pytest.mark.parametrize(
    "part",
    [
        "x operations /v0/operations/",
        "x operations /events?topic=operations",
        "x operations /static/x/page.css",
        "x operations /nowhere",
        "x operations /?limit=x",
        "x operations /docs",
    ],
)
async def test_what_is_no_part_of_a_page_is_not_sent_as_one(on_sqlite: Server, part: str) -> None:
    with signed_in(on_sqlite) as visitor:
        cookie = visitor.cookies[COOKIE]
    async with open_page(on_sqlite, f"/events?topic=operations&part={quote(part)}", cookie) as page:
        await until(page, b"event: again-x")


@pytest.mark.parametrize("part", ["", "x", "x y", "x y http://a/", "x y //a/", "<x y /", "x\ny z /", "x y /\\a"])
def test_a_part_that_is_none_is_an_error(on_sqlite: Server, part: str) -> None:
    with signed_in(on_sqlite) as visitor:
        response = visitor.get("/events", params={"topic": "operations", "part": part or "-"})
        assert response.status_code == 400


async def test_a_part_that_may_not_be_seen_is_not_sent(deviceops_on_sqlite: Deviceops) -> None:
    text, setting = token(deviceops_on_sqlite, "devices", ["read:device"])
    with serving(deviceops_on_sqlite.with_settings(api_tokens=setting)) as server:
        with signed_in(server, text) as visitor:
            cookie = visitor.cookies[COOKIE]
        part = quote("x device /operations/rows")
        async with open_page(server, f"/events?topic=device/{DEVICES[0]}&part={part}", cookie) as page:
            await until(page, b"event: again-x")


def test_while_the_database_is_away_the_page_says_so_and_tries_again(
    deviceops_on_sqlite: Deviceops, new_sqlite_database: NewDatabase
) -> None:
    file = Path(make_url(deviceops_on_sqlite.settings["database_url"]).database or "")
    with serving(deviceops_on_sqlite) as server, signed_in(server) as visitor:
        for each in file.parent.glob(f"{file.name}*"):
            each.unlink()
        page = visitor.get("/")
        assert page.status_code == 503
        assert page.headers["Content-Security-Policy"] == POLICY
        assert "The database does not answer" in text_of(page)
        assert '<meta http-equiv="refresh" content="2">' in page.text
        part = visitor.get("/operations/rows", headers={"HX-Request": "true"})
        assert (part.status_code, "<html" in part.text) == (503, False)
        assert visitor.sign_in(server.token).status_code == 503
        Path(make_url(new_sqlite_database()).database or "").rename(file)
        assert visitor.get("/").status_code == 303  # another database, without the session
        assert visitor.sign_in(server.token).status_code == 303
        assert visitor.get("/").status_code == 200
    assert {line["level"] for line in server.log} == {"info", "warning"}


def test_what_no_browser_sends_is_refused_and_no_error_of_ours(server: Server) -> None:
    with Visitor(server) as visitor:
        odd = visitor.get("/", headers={"HX-Request": "true", "HX-Current-URL": "http://["})
        assert odd.headers["HX-Redirect"].startswith("/sign-in")
        origin = str(visitor.base_url).rstrip("/")
        for charset in ("unicode_escape", "raw_unicode_escape", "latin-1"):
            body = b'--b\r\nContent-Disposition: form-data; name="token"\r\n\r\n\\ud800\r\n--b--\r\n'
            kind = f"multipart/form-data; boundary=b; charset={charset}"
            refused = visitor.post("/sign-in", content=body, headers={"Origin": origin, "Content-Type": kind})
            assert refused.status_code == httpx.codes.UNSUPPORTED_MEDIA_TYPE
            assert "Forms are read in UTF-8." in text_of(refused)
    with signed_in(server) as visitor:
        nowhere = visitor.get("/dead-letters/1/replay", headers={"Accept": "text/html"})
        assert (nowhere.status_code, "There is no page at this address." in nowhere.text) == (404, True)
    assert not [line for line in server.log if line["level"] == "error"]
