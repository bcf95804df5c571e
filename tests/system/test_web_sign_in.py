"""Who may see the web page, and who may act: tokens, sessions, scopes, origins."""

import json
from urllib.parse import parse_qs, urlsplit

import httpx

from tests.support.command import Deviceops
from tests.support.paging import COOKIE, Visitor, signed_in, text_of
from tests.support.serving import SCOPES, Server, serving, token

FOREIGN = [
    {},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "{own}", "Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "http://localhost:1"},
]


def test_who_has_not_signed_in_is_led_to_the_form_and_then_to_what_was_asked_for(own_server: Server) -> None:
    with Visitor(own_server) as visitor:
        asked = visitor.get("/?state=FAILED&operation_type=a+b")
        assert asked.status_code == 303
        address = urlsplit(asked.headers["Location"])
        assert (address.path, parse_qs(address.query)) == (
            "/sign-in",
            {"next": ["/?state=FAILED&operation_type=a+b"]},
        )
        form = visitor.get(asked.headers["Location"])
        assert 'value="/?state=FAILED&amp;operation_type=a+b"' in form.text

        done = visitor.sign_in(own_server.token, "/?state=FAILED&operation_type=a+b")

        assert (done.status_code, done.headers["Location"]) == (303, "/?state=FAILED&operation_type=a+b")
        assert "No operation matches" in text_of(visitor.get(done.headers["Location"]))
        assert visitor.get("/sign-in?next=/search").headers["Location"] == "/search"
        part = httpx.get(
            f"{own_server.url}/operations/rows",
            headers={"HX-Request": "true", "HX-Current-URL": f"{own_server.url}/?state=FAILED"},
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


def test_signing_out_ends_the_session_for_a_copy_of_the_cookie_too(own_server: Server) -> None:
    with signed_in(own_server) as visitor, Visitor(own_server) as thief:
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


def test_what_no_browser_sends_is_refused_and_no_error_of_ours(own_server: Server) -> None:
    with Visitor(own_server) as visitor:
        odd = visitor.get("/", headers={"HX-Request": "true", "HX-Current-URL": "http://["})
        assert odd.headers["HX-Redirect"].startswith("/sign-in")
        origin = str(visitor.base_url).rstrip("/")
        for charset in ("unicode_escape", "raw_unicode_escape", "latin-1"):
            body = b'--b\r\nContent-Disposition: form-data; name="token"\r\n\r\n\\ud800\r\n--b--\r\n'
            kind = f"multipart/form-data; boundary=b; charset={charset}"
            refused = visitor.post("/sign-in", content=body, headers={"Origin": origin, "Content-Type": kind})
            assert refused.status_code == httpx.codes.UNSUPPORTED_MEDIA_TYPE
            assert "Forms are read in UTF-8." in text_of(refused)
    with signed_in(own_server) as visitor:
        nowhere = visitor.get("/dead-letters/1/replay", headers={"Accept": "text/html"})
        assert (nowhere.status_code, "There is no page at this address." in nowhere.text) == (404, True)
    assert not [line for line in own_server.log if line["level"] == "error"]
