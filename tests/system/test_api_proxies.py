"""Behind a proxy: links lead to where the caller has come from, if the proxy is trusted."""

import httpx
import pytest

from tests.support.command import Deviceops
from tests.support.serving import DEVICE_OPERATIONS, DEVICES, OPERATIONS, Server, announce, serving

HOST = {"X-Forwarded-Host": "fleet.example.com", "X-Forwarded-Proto": "https"}
FORWARDED = [
    (HOST, "https://fleet.example.com"),
    (HOST | {"X-Forwarded-Port": "443"}, "https://fleet.example.com"),
    (HOST | {"X-Forwarded-Port": "8443"}, "https://fleet.example.com:8443"),
    (
        {"X-Forwarded-Host": "fleet.example.com:81, inner", "X-Forwarded-Port": "8443"},
        "http://fleet.example.com:81",
    ),
    ({"X-Forwarded-Host": "[2001:db8::1]"}, "http://[2001:db8::1]"),
    ({"X-Forwarded-Host": "no host/<script>"}, None),
    ({"X-Forwarded-Host": "", "X-Forwarded-Port": "8443"}, None),
    (HOST | {"X-Forwarded-Port": "99999"}, "https://fleet.example.com"),
    ({"Host": "fleet.example.com", "X-Forwarded-Port": "8443"}, "http://fleet.example.com:8443"),
    ({"Host": "fleet.example.com:80", "X-Forwarded-Port": "443"}, "http://fleet.example.com"),
]


def first_link(api: httpx.Client, headers: dict[str, str]) -> str:
    link = api.get(DEVICE_OPERATIONS, params={"limit": 1}, headers=headers).json()["content"]["next"]
    assert isinstance(link, str)
    return link.removesuffix(f"{DEVICE_OPERATIONS}?limit=1&offset=1")


@pytest.mark.parametrize(("headers", "base"), FORWARDED)
def test_links_lead_to_the_host_that_a_trusted_proxy_names(
    server: Server, api: httpx.Client, headers: dict[str, str], base: str | None
) -> None:
    announce(api, DEVICES[:2])
    assert first_link(api, headers) == (base or server.url)


def test_who_is_no_trusted_proxy_is_not_believed(deviceops_on_sqlite: Deviceops) -> None:
    with serving(deviceops_on_sqlite.with_settings(http_proxies="10.0.0.1")) as server, server.client() as api:
        announce(api, DEVICES[:2])
        assert first_link(api, HOST | {"X-Forwarded-Port": "8443"}) == server.url


def test_head_is_get_without_a_body(server: Server, api: httpx.Client) -> None:
    announce(api, DEVICES[:2])
    operation = DEVICE_OPERATIONS.removesuffix("devices/")
    device = f"{DEVICE_OPERATIONS}{DEVICES[0]}/"
    unknown = f"{operation}devices/{OPERATIONS}"
    for path in (
        OPERATIONS,
        operation,
        DEVICE_OPERATIONS,
        device,
        "/v0/dead-letters/",
        "/docs",
        "/openapi.json",
        unknown,
    ):
        got, head = api.get(path), api.head(path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert head.headers["content-length"] == got.headers["content-length"]
        assert head.headers["content-type"] == got.headers["content-type"]
    with api.stream("HEAD", f"{operation}events") as stream:  # which has no end
        assert stream.status_code == httpx.codes.OK
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert stream.read() == b""
    assert httpx.head(f"{server.url}{OPERATIONS}", trust_env=False).status_code == httpx.codes.UNAUTHORIZED
    assert api.head("/v0/dead-letters/replay/").status_code == httpx.codes.METHOD_NOT_ALLOWED
    for path in ("livez", "readyz", "metrics"):
        assert httpx.head(f"{server.probes}/{path}", trust_env=False).status_code == httpx.codes.OK
    told = server.probe("metrics").text
    assert 'deviceops_http_requests_total{method="HEAD",route="/v0/operations/",status="200"}' in told
    assert any(entry.get("method") == "HEAD" and entry["path"] == OPERATIONS for entry in server.log)
