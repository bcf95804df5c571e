"""The web page as a whole: its policy, its files, the list of operations, the search, the audit log."""

import asyncio
import re
from datetime import timedelta
from html import unescape
from pathlib import Path

from sqlalchemy import make_url

from tests.support.command import Deviceops
from tests.support.databases import NewDatabase
from tests.support.paging import signed_in, text_of
from tests.support.seed import OPERATION
from tests.support.serving import DEVICES, Server, announce, put, serving
from worker.model.text import one_line
from worker.store import audit
from worker.store.database import Database

PAGES = ("/", "/operations/rows", "/search", "/search?q=zzzz", "/sign-in", "/nowhere", "/?limit=x")
HTML = {"Accept": "text/html,application/xhtml+xml"}
POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "'\"><script>alert(1)</script>",
    "</bdi></td></table></main><h1>owned</h1>",
    "{{ 7 * 7 }}{% raw %}",
    "\u202eevitcani\u2066",
    "\x1b[31m\x07",
    "x" * 200,
]


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


def test_rows_show_what_the_database_has(own_server: Server) -> None:
    with own_server.client() as api, signed_in(own_server) as visitor:
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


def test_filters_are_in_the_address_and_pages_keep_them(own_server: Server) -> None:
    with own_server.client() as api, signed_in(own_server) as visitor:
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


def test_an_id_or_its_beginning_leads_to_what_it_is_of(own_server: Server) -> None:
    with own_server.client() as api, signed_in(own_server) as visitor:
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
