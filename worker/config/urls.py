"""URLs of the database and the broker. Errors never quote a password."""

import re
from collections.abc import Callable, Mapping
from urllib.parse import parse_qsl, urlsplit

import yarl
from pydantic import SecretStr
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
}
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
"""libpq's modes, the weakest first: TLS from `require`, verification of the server from `verify-ca`."""

_SIGNS = "the password has characters to percent-encode: @ is %40, / is %2F, ? is %3F, # is %23"
"""Unencoded, they end the password, and the rest of it would be shown as the host."""
_MAX_PORT = 65_535
_AUTHORITY = re.compile(r"://([^/?#]*)")
_BROKER = "is not a broker URL such as amqp://user:password@host:5672/"
MAX_HEARTBEAT = 65_534
"""Seconds; the client takes a higher value for 0."""
_BROKER_PARAMETERS: Mapping[str, tuple[Callable[[str], bool], str]] = {
    "auth": (lambda text: text.lower() in ("plain", "external"), "plain or external"),
    "heartbeat": (
        lambda text: re.fullmatch(r"\d{1,5}", text, re.ASCII) is not None and int(text) <= MAX_HEARTBEAT,
        f"a whole number of seconds up to {MAX_HEARTBEAT:,}, 0 for no heartbeats",
    ),
    "name": (bool, "the connection's name, as the broker shows it"),
    "timeout": (
        lambda text: re.fullmatch(r"\d{1,4}(\.\d+)?", text, re.ASCII) is not None and float(text) > 0,
        "seconds to wait for a connection, above 0 and below 10,000",
    ),
}
"""The supported parameters of the client, with a check and the expected value; TLS has settings of its own."""


def database_url(secret: SecretStr) -> SecretStr:
    """A database URL with its driver. Raises ValueError."""
    text = secret.get_secret_value()
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # ValueError: a port that is no number
        raise ValueError("is not a database URL such as postgresql://user@host/name") from None
    kind = url.drivername.split("+")[0]
    if kind not in _DRIVERS:
        raise ValueError(f"{kind!r} is not supported: use sqlite:///FILE or postgresql://user@host/name")
    if kind == "sqlite" and url.database in (None, "", ":memory:"):
        raise ValueError("an in-memory SQLite database loses every report: use sqlite:///FILE")
    if kind != "sqlite" and text.count("@") > 1:
        raise ValueError(_SIGNS)
    _check_host(url.host, url.port)
    given = [name for name, _ in parse_qsl(urlsplit(text).query, keep_blank_values=True)]
    if blank := set(given) - url.query.keys():
        raise ValueError(f"has a parameter without a value: {', '.join(sorted(blank))}")
    if not url.database:
        raise ValueError(f"names no database: {kind}://user@host/name")
    if "sslmode" in url.query:  # libpq's name for what the driver calls ssl
        url = url.set(query={"ssl": url.query["sslmode"]} | {k: v for k, v in url.query.items() if k != "sslmode"})
    if unknown := url.query.keys() - ({"ssl"} if kind != "sqlite" else set()):
        raise ValueError(f"has a parameter that is not supported: {', '.join(sorted(unknown))}")
    if url.query.get("ssl", SSL_MODES[0]) not in SSL_MODES:
        raise ValueError(f"sslmode is one of {', '.join(SSL_MODES)}")
    return SecretStr(url.set(drivername=_DRIVERS[kind]).render_as_string(hide_password=False))


def amqp_url(secret: SecretStr) -> SecretStr:
    """A valid broker URL, unchanged. Raises ValueError."""
    text = secret.get_secret_value()
    try:
        url = yarl.URL(text)
    except ValueError:
        raise ValueError(_BROKER) from None
    if url.scheme not in ("amqp", "amqps") or not url.host:
        raise ValueError(_BROKER)
    _check_host(url.host, url.port)
    authority, rest = _AUTHORITY.split(text, maxsplit=1)[1:]
    if authority.count("@") > 1 or "@" in rest:
        raise ValueError(_SIGNS)
    if unknown := url.query.keys() - _BROKER_PARAMETERS.keys():
        raise ValueError(
            f"has a parameter that is not supported: {', '.join(sorted(unknown))}"
            " (files for TLS are the settings DEVICEOPS_AMQP_…_FILE)"
        )
    for name, (is_allowed, meaning) in _BROKER_PARAMETERS.items():
        values = url.query.getall(name, [])
        if len(values) > 1 or not all(map(is_allowed, values)):
            raise ValueError(f"the parameter {name} is invalid (expected once: {meaning})")
    return secret


def _check_host(host: str | None, port: int | None) -> None:
    """Refuse hosts that no resolver accepts: clients raise various errors for them."""
    try:
        (host or "").encode("idna")
    except UnicodeError:
        raise ValueError("has an invalid host: a part of the name is empty or too long") from None
    if port is not None and not 0 < port <= _MAX_PORT:
        raise ValueError(f"has an invalid port: {port}")


def management_url(secret: SecretStr) -> SecretStr:
    """A valid URL of RabbitMQ's management plugin, unchanged. Raises ValueError."""
    try:
        url = yarl.URL(secret.get_secret_value())
        is_right = url.scheme in ("http", "https") and bool(url.host) and not url.query_string
    except ValueError:
        is_right = False
    if not is_right:
        raise ValueError("is not a URL such as http://user:password@host:15672/")
    return secret


def without_password(url: SecretStr) -> str:
    """A broker's URL with the password hidden."""
    parsed = yarl.URL(url.get_secret_value())
    return str(parsed.with_password("***") if parsed.password else parsed)
