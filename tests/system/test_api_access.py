"""Who may call the HTTP API: tokens and their scopes, and without tokens this machine alone."""

import json
import socket
from collections.abc import Iterator
from hashlib import sha256
from typing import NamedTuple

import httpx
import pytest

from tests.support.command import Deviceops
from tests.support.serving import (
    DEVICE_OPERATIONS,
    NOWHERE,
    OF_OPERATION,
    OPERATIONS,
    PATH,
    REPORT,
    SCOPES,
    Server,
    refused,
    serving,
    token,
)


class Call(NamedTuple):
    """A call, the scope that it needs, and the status that a caller who may call gets where there is nothing."""

    method: str
    path: str
    scope: str
    status: int
    body: object = None


CALLS = [
    Call("GET", OPERATIONS, "read:operation", 200),
    Call("GET", OF_OPERATION, "read:operation", 404),
    Call("GET", f"{OF_OPERATION}events", "read:operation", 404),
    Call("GET", DEVICE_OPERATIONS, "read:operation", 404),
    Call("GET", PATH, "read:operation", 404),
    Call("GET", f"{PATH}reports/", "read:operation", 404),
    Call("GET", f"{OF_OPERATION}activity/", "read:operation", 404),
    Call("GET", f"{OF_OPERATION}reasons/", "read:operation", 404),
    Call("GET", f"{OF_OPERATION}progress/", "read:operation", 404),
    Call("GET", f"/v0/devices/{NOWHERE}/operations/", "read:device", 404),
    Call("PUT", PATH, "update:operation", 404, REPORT),
    Call("PUT", OF_OPERATION, "update:operation", 404, {"state": "CANCELLED"}),
    Call("POST", OPERATIONS, "update:operation", 201, {"id": NOWHERE, "operation_type": "CONVERGE"}),
    Call("GET", "/v0/events?since=nowhere", "read:operation", 400),
    Call("GET", "/v0/dead-letters/", "admin:dead-letters", 200),
    Call("GET", "/v0/dead-letters/1/", "admin:dead-letters", 404),
    Call("POST", "/v0/dead-letters/replay/", "admin:dead-letters", 200, {"all": True}),
    Call("POST", "/v0/dead-letters/discard/", "admin:dead-letters", 200, {"all": True, "because": "x"}),
]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A token of each scope alone, and under `setting` what makes them known."""
    deviceops = Deviceops(tmp_path_factory.mktemp("tokens"))
    made: dict[str, str] = {}
    setting = ""
    for scope in SCOPES:
        made[scope], setting = token(deviceops.with_settings(api_tokens=setting), f"only {scope}", [scope])
    return {**made, "setting": setting}


@pytest.fixture
def server(deviceops_on_sqlite: Deviceops, tokens: dict[str, str]) -> Iterator[Server]:
    """A server that knows the tokens."""
    with serving(deviceops_on_sqlite.with_settings(api_tokens=tokens["setting"])) as server:
        yield server


def test_each_call_needs_its_scope_and_no_other(server: Server, tokens: dict[str, str]) -> None:
    with server.client() as api:
        documented = api.get("/openapi.json").json()["paths"]
    assert len(CALLS) == sum(len(calls) for calls in documented.values())
    for scope in SCOPES:
        with server.client(tokens[scope]) as api:
            for call in CALLS:
                response = api.request(call.method, call.path, json=call.body)
                if call.scope == scope:
                    assert response.status_code == call.status, (call, response.text)
                else:
                    refused(response, 403)
                    assert call.scope in response.json()["message"]


def test_who_has_no_token_or_a_wrong_one_is_a_stranger_whatever_the_request(server: Server) -> None:
    with server.client() as api:
        known = api.headers.pop("Authorization")
        for authorization in (
            None,
            "",
            "Bearer",
            "Bearer x",
            known[:-1],
            f"{known}x",
            f"Basic {known}",
        ):
            headers = {} if authorization is None else {"Authorization": authorization}
            for call in CALLS:
                response = api.request(call.method, call.path, content=b"no JSON", headers=headers)
                refused(response, 401)
                assert response.headers["WWW-Authenticate"] == "Bearer"
        refused(api.get(OPERATIONS, headers=[(b"Authorization", b"Bearer \xff\xfe")]), 401)
        assert api.get("/docs").status_code == 200
        assert api.get("/openapi.json").status_code == 200


def test_a_token_is_told_once_and_kept_as_a_hash(deviceops_on_sqlite: Deviceops, server: Server) -> None:
    text, setting = token(deviceops_on_sqlite, "ops", ["read:operation"])

    assert json.loads(setting) == {
        "ops": {"scopes": ["read:operation"], "hash": sha256(text.encode()).hexdigest()}
    }
    told = deviceops_on_sqlite.out("token", "create", "ops", "--scope", "read:operation")
    assert told.splitlines()[1].startswith("deviceops_")
    assert told.splitlines()[-1].startswith("DEVICEOPS_API_TOKENS='{")
    checked = deviceops_on_sqlite.with_settings(api_tokens=setting)("check").stdout
    assert json.loads(setting)["ops"]["hash"] not in checked
    assert '"hash":"***"' in checked
    with server.client() as api:
        api.get(OPERATIONS)
    server.stop()
    assert server.token not in json.dumps(server.log)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("token", "create"), "NAME"),
        (("token", "create", "ops"), "--scope"),
        (("token", "create", "ops", "--scope", "everything"), "everything"),
        (("token", "create", "", "--scope", "read:device"), "name"),
    ],
)
def test_a_token_without_a_name_or_a_scope_is_wrong_usage(
    deviceops_on_sqlite: Deviceops, arguments: tuple[str, ...], complaint: str
) -> None:
    done = deviceops_on_sqlite(*arguments)
    assert done.returncode == 2
    assert complaint.lower() in done.stderr.lower()


def test_without_tokens_only_this_machine_is_answered_by_its_own_names(deviceops_on_sqlite: Deviceops) -> None:
    everywhere = deviceops_on_sqlite.with_settings(http_host="0.0.0.0", http_port="0")  # noqa: S104  # it must not
    with everywhere.start("serve") as process:
        server = Server(process, "none")
        assert server.url.startswith("http://127.0.0.1:")
        assert "loopback only" in server.log[1]["event"]
        with server.client() as api:
            assert api.get(OPERATIONS).status_code == 200
            assert api.put(PATH, json={**REPORT, "state": "CREATED"}).status_code == 200
            refused(api.get(OPERATIONS, headers={"Host": "rebound.example"}), 401)
        assert server.stop() == 0


FORWARDED = [
    {"X-Forwarded-For": "203.0.113.5"},
    {"X-Forwarded-For": "127.0.0.1"},
    {"X-Forwarded-For": ""},
    {"X-Forwarded-Host": "deviceops.example"},
    {"X-Forwarded-Proto": "https"},
    {"X-Forwarded-Server": "proxy"},
    {"Forwarded": "for=203.0.113.5"},
    {"X_Forwarded_For": "203.0.113.5"},
    {"X-Original-Forwarded-For": "203.0.113.5"},
    {"X-Original-Host": "deviceops.example"},
    {"X-Real-IP": "203.0.113.5"},
    {"X-Azure-ClientIP": "203.0.113.5"},
    {"Fastly-Client-IP": "203.0.113.5"},
    {"CF-Connecting-IP": "203.0.113.5"},
    {"CDN-Loop": "edge"},
    {"Via": "1.1 proxy"},
]
OF_ANOTHER_PAGE = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:3000"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Host": "rebound.example", "Origin": "http://rebound.example"},
    {"Host": "0.0.0.0", "Origin": "http://0.0.0.0"},  # noqa: S104  # browsers take it for this machine
]


@pytest.mark.parametrize("proxies", ["127.0.0.1", "*"])
def test_without_tokens_what_a_proxy_or_a_strange_page_sends_is_refused_and_changes_nothing(
    deviceops_on_sqlite: Deviceops, proxies: str
) -> None:
    alone = deviceops_on_sqlite.with_settings(http_port="0", http_probe_port="0", http_proxies=proxies)
    with alone.running("serve") as process:
        server = Server(process, "none")
        with server.client() as api:
            assert api.put(PATH, json={**REPORT, "state": "CREATED"}).status_code == 200
            for headers in FORWARDED + OF_ANOTHER_PAGE:
                for call in CALLS:
                    response = api.request(call.method, call.path, json=call.body, headers=headers)
                    refused(response, 401)
                    assert "see `deviceops token create`" in response.json()["message"], headers
            assert (
                "a call through a proxy (x-forwarded-for)" in api.get(PATH, headers=FORWARDED[0]).json()["message"]
            )
            assert api.get(PATH).json()["content"]["state"] == "CREATED"
            for own in ({"Origin": server.url}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}):
                assert api.get(PATH, headers=own).status_code == 200
            assert api.get("/docs", headers=FORWARDED[0]).status_code == 200, "which says nothing of the fleet"
        assert b" 401 " in _by_http_1_0(server, b"")
        assert b" 401 " in _by_http_1_0(server, b"Host: localhost\r\n")
        server.stop()


def _by_http_1_0(server: Server, headers: bytes) -> bytes:
    """The status line of a call as nginx makes it of its own accord."""
    url = httpx.URL(server.url)
    with socket.create_connection((url.host, url.port or 0), timeout=60) as connection:
        connection.sendall(b"GET %s HTTP/1.0\r\n%s\r\n" % (OPERATIONS.encode(), headers))
        return connection.recv(65_536).splitlines()[0]


def test_a_call_with_a_token_may_come_through_a_proxy(server: Server) -> None:
    with server.client() as api:
        for headers in FORWARDED:
            assert api.get(OPERATIONS, headers=headers).status_code == 200


def test_an_address_that_cannot_be_listened_on_is_one_clear_line(deviceops_on_sqlite: Deviceops) -> None:
    with serving(deviceops_on_sqlite) as server:
        port = str(httpx.URL(server.url).port)
        taken = deviceops_on_sqlite("serve", "--port", port)
    assert taken.returncode == 1
    assert f"cannot listen on 127.0.0.1, port {port}" in taken.stderr.splitlines()[-1]
    _, setting = token(deviceops_on_sqlite, "ops")
    elsewhere = deviceops_on_sqlite.with_settings(http_host="192.0.2.1", api_tokens=setting)("serve")
    assert elsewhere.returncode == 1
    assert "cannot listen on 192.0.2.1" in elsewhere.stderr
