"""Which calls to an HTTP API without tokens come from this machine."""

import pytest
from starlette.authentication import AuthenticationError
from starlette.requests import HTTPConnection

from tests.support.serving import (
    OPERATIONS,
)
from worker.api.auth import ANONYMOUS, TokenBackend


@pytest.mark.parametrize("client", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
async def test_without_tokens_this_machine_may_call_by_all_of_its_addresses(client: str) -> None:
    found = await TokenBackend(None).authenticate(_called_by((client, 1)))
    assert found is not None
    assert found[1] is ANONYMOUS  # type: ignore[comparison-overlap]  # has what is used of a user


@pytest.mark.parametrize(
    "client", [("203.0.113.5", 1), ("10.0.0.1", 1), ("::ffff:10.0.0.1", 1), ("fe80::1", 1), None]
)
async def test_without_tokens_no_other_machine_may_call_however_it_comes_here(
    client: tuple[str, int] | None,
) -> None:
    with pytest.raises(AuthenticationError, match="from another machine"):
        await TokenBackend(None).authenticate(_called_by(client))


def _called_by(client: object) -> HTTPConnection:
    scope = {"type": "http", "scheme": "http", "path": OPERATIONS, "query_string": b"", "http_version": "1.1"}
    return HTTPConnection({**scope, "headers": [(b"host", b"localhost")], "client": client})
