"""URLs of the database and the broker. Errors never quote a password."""

import re
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import parse_qsl, urlsplit

import yarl
from pydantic import SecretStr
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from worker.config import postgresql_url

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
}
_SIGNS = "the password has characters to percent-encode: @ is %40, / is %2F, ? is %3F, # is %23"
"""Unencoded, they end the password, and the rest of it would be shown as the host."""
_MAX_PORT = 65_535
_DEFAULT_PORTS = {"amqp": 5672, "amqps": 5671}
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
    """A database URL with its driver, in the form of `postgresql_url`. Raises ValueError."""
    text = secret.get_secret_value().strip()
    if "\0" in text or "%00" in text:
        raise ValueError("has a NUL character")
    if text.startswith("postgres") and "@" in text.partition("?")[2]:
        raise ValueError(_SIGNS)
    kind = re.split(r"\+|://", text, maxsplit=1)[0]
    stripped, hosts = (text, "") if kind == "sqlite" else postgresql_url.without_hosts(text)
    try:
        url = make_url(stripped)
    except (ArgumentError, ValueError):
        raise ValueError("is not a database URL such as postgresql://user@host/name") from None
    if kind not in _DRIVERS:
        raise ValueError(f"{kind!r} is not supported: use sqlite:///FILE or postgresql://user@host/name")
    given = [name for name, _ in parse_qsl(urlsplit(text).query, keep_blank_values=True)]
    if blank := set(given) - url.query.keys():
        raise ValueError(f"has a parameter without a value: {', '.join(sorted(blank))}")
    if kind == "sqlite":
        _check_sqlite(url)
    else:
        if text.count("@") > 1:
            raise ValueError(_SIGNS)
        url = postgresql_url.normalize(url, hosts)
        for host, _ in postgresql_url.target(url).servers:
            if not (host or "").startswith("/"):
                _check_host(host)
        if not url.database:
            raise ValueError(f"names no database: {kind}://user@host/name")
    return SecretStr(url.set(drivername=_DRIVERS[kind]).render_as_string(hide_password=False))


def _check_sqlite(url: URL) -> None:
    if url.database in (None, "", ":memory:"):
        raise ValueError("an in-memory SQLite database loses every report: use sqlite:///FILE")
    if url.query:
        raise ValueError(f"has a parameter that is not supported: {', '.join(sorted(url.query))}")


def amqp_url(secret: SecretStr) -> SecretStr:
    """A valid broker URL, of one node or of several of a cluster, unchanged. Raises ValueError."""
    text = secret.get_secret_value()
    authority = _AUTHORITY.search(text)
    if authority is None:
        raise ValueError(_BROKER)
    if authority[1].count("@") > 1 or "@" in text[authority.end() :]:
        raise ValueError(_SIGNS)
    try:
        nodes = broker_nodes(secret)
    except ValueError:
        raise ValueError(_BROKER) from None
    for node in nodes:
        if node.scheme not in ("amqp", "amqps") or not node.host:
            raise ValueError(_BROKER)
        _check_host(node.host, node.port)
    query = nodes[0].query
    if unknown := query.keys() - _BROKER_PARAMETERS.keys():
        raise ValueError(
            f"has a parameter that is not supported: {', '.join(sorted(unknown))}"
            " (files for TLS are the settings DEVICEOPS_AMQP_…_FILE)"
        )
    for name, (is_allowed, meaning) in _BROKER_PARAMETERS.items():
        values = query.getall(name, [])
        if len(values) > 1 or not all(map(is_allowed, values)):
            raise ValueError(f"the parameter {name} is invalid (expected once: {meaning})")
    return secret


def broker_nodes(url: SecretStr) -> Sequence[yarl.URL]:
    """The URL of each node that a broker's URL names, in its order, with its port. Raises ValueError."""
    before, authority, after = _AUTHORITY.split(url.get_secret_value(), maxsplit=1)
    login, at, hosts = authority.rpartition("@")
    nodes = (yarl.URL(f"{before}://{login}{at}{host}{after}") for host in hosts.split(","))
    return [
        node.with_port(_DEFAULT_PORTS.get(node.scheme)) if node.host and node.port is None else node
        for node in nodes
    ]


def with_broker_login(url: SecretStr, other: SecretStr) -> SecretStr:
    """A broker's URL with the user and the password of another one."""
    before, authority, after = _AUTHORITY.split(url.get_secret_value(), maxsplit=1)
    login = _AUTHORITY.split(other.get_secret_value(), maxsplit=1)[1].rpartition("@")[0]
    return SecretStr(f"{before}://{login and f'{login}@'}{authority.rpartition('@')[2]}{after}")


def _check_host(host: str | None, port: int | None = None) -> None:
    """Refuse hosts that no resolver accepts: clients raise various errors for them."""
    name = host or ""
    if any(map(str.isspace, name)):
        raise ValueError("has an invalid host: a space in the name")
    try:
        name.encode("idna")
    except UnicodeError:
        raise ValueError("has an invalid host: a part of the name is empty or too long") from None
    if port is not None and not 0 < port <= _MAX_PORT:
        raise ValueError(f"has an invalid port: {port}")


def http_url(text: str) -> yarl.URL | None:
    """Parse a URL of HTTP; None if it is none, or has port 0, a space or an unprintable character."""
    try:
        url = yarl.URL(text)
        is_valid = url.scheme in ("http", "https") and bool(url.host) and bool(url.port)
    except (ValueError, TypeError):
        return None
    return url if is_valid and text.isprintable() and " " not in text else None


def management_url(secret: SecretStr) -> SecretStr:
    """A valid URL of RabbitMQ's management plugin, unchanged. Raises ValueError."""
    url = http_url(secret.get_secret_value())
    if url is None or url.query_string:
        raise ValueError("is not a URL such as http://user:password@host:15672/")
    return secret


def without_password(url: SecretStr) -> str:
    """A broker's URL with the password hidden."""
    before, authority, after = _AUTHORITY.split(url.get_secret_value(), maxsplit=1)
    login, at, hosts = authority.rpartition("@")
    user, colon, _ = login.partition(":")
    return f"{before}://{user}{':***' if colon else ''}{at}{hosts}{after}"
