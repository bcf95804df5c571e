"""Who may do what on the web page: where signing in leads, and which page a request comes from."""

import pytest
from fastapi import Request

from worker.api.responses import ApiError
from worker.pages.access import require_own_origin, safe_next
from worker.pages.attempts import OF_ONE, Attempts


@pytest.mark.parametrize("address", ["/", "/?state=FAILED&operation_type=a%20b", "/operations/4711", "/é"])
def test_signing_in_leads_to_an_address_of_this_server(address: str) -> None:
    assert safe_next(address) == address


@pytest.mark.parametrize(
    "address",
    [
        "",
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "https://evil.example/",
        "javascript:alert(1)",
        "evil.example",
        "/\t/evil.example",
        "/\n/evil.example",
        "/a\r\nSet-Cookie: x=y",
        " //evil.example",
        "/" + "a" * 2_000,
    ],
)
def test_signing_in_never_leads_elsewhere(address: str) -> None:
    assert safe_next(address) == "/"


def _post(host: str, scheme: str = "http", **headers: str) -> Request:
    named = {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    raw = [(name.encode(), value.encode()) for name, value in named.items()]
    scope = {"type": "http", "method": "POST", "scheme": scheme, "path": "/", "query_string": b"", "headers": raw}
    return Request({**scope, "server": ("127.0.0.1", 80)})


@pytest.mark.parametrize(
    "request_",
    [
        _post("deviceops.example", origin="http://deviceops.example"),
        _post("deviceops.example:8080", origin="http://deviceops.example:8080", sec_fetch_site="same-origin"),
        _post("deviceops.example", sec_fetch_site="same-origin"),
        _post("deviceops.example", "https", origin="https://deviceops.example"),
        _post("deviceops.example", origin="https://deviceops.example"),  # a proxy that is not trusted ends TLS
    ],
)
def test_a_form_of_ours_is_taken(request_: Request) -> None:
    require_own_origin(request_)


@pytest.mark.parametrize(
    "request_",
    [
        _post("deviceops.example"),
        _post("deviceops.example", origin="null"),
        _post("deviceops.example", origin=""),
        _post("deviceops.example", origin="http://evil.example"),
        _post("deviceops.example", origin="http://deviceops.example:8080"),
        _post("deviceops.example", origin="http://deviceops.example.evil.example"),
        _post("deviceops.example", origin="http://deviceops.example", sec_fetch_site="cross-site"),
        _post("deviceops.example", origin="http://deviceops.example", sec_fetch_site="same-site"),
        _post("deviceops.example", sec_fetch_site="none"),
        _post("deviceops.example", origin="http://deviceops.example:99999"),
    ],
)
def test_a_form_of_another_page_is_refused(request_: Request) -> None:
    with pytest.raises(ApiError, match="page"):
        require_own_origin(request_)


def test_wrong_tokens_are_bounded_for_each_address() -> None:
    attempts = Attempts()
    assert not any(attempts.fail("203.0.113.5") for _ in range(OF_ONE))
    assert attempts.fail("203.0.113.5")
    assert not attempts.fail("203.0.113.6")
