"""PostgreSQL's URLs, as libpq takes them: several hosts, sockets, what a session has to be like, settings.

Source: https://www.postgresql.org/docs/current/libpq-connect.html (connection URIs, parameter key words).
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from urllib.parse import unquote

from sqlalchemy.engine import URL

SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
"""libpq's modes, the weakest first: TLS from `require`, verification of the server from `verify-ca`."""
SESSION_ATTRIBUTES = ("any", "read-write", "read-only", "primary", "standby", "prefer-standby")
"""What `target_session_attrs` may ask for."""
PARAMETERS = (
    "application_name",
    "connect_timeout",
    "host",
    "options",
    "port",
    "sslmode",
    "target_session_attrs",
)
"""The supported parameters."""
CONNECT_TIMEOUT = 10
"""Seconds for an attempt to connect to one host, unless the URL has another timeout."""
DEFAULT_PORT = 5432

_AUTHORITY = re.compile(
    r"(?P<before>\w+(?:\+\w+)?://(?:[^:/?]*(?::[^@]*)?@)?)(?P<hosts>[^/?]*)(?P<after>.*)", re.DOTALL
)
"""The hosts, after the user and the password as SQLAlchemy reads them."""
_OPTION = re.compile(r"(?:-c\s*|--)([A-Za-z_][\w.-]*)=((?:\\.|[^\s\\])*)(?:\s+|$)", re.DOTALL)
_OWN = {"statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "transaction_timeout"}
"""Settings that decide when a transaction is given up."""
_MAX_TIMEOUT = 3_600
_MAX_PORT = 65_535


class Host(NamedTuple):
    """A host to connect to: a name, an address, or the folder of a socket; None leaves it to the driver."""

    host: str | None
    port: int

    def __str__(self) -> str:
        if self.host is not None and self.host.startswith("/"):
            return f"socket {self.host}/.s.PGSQL.{self.port}"
        return f"{self.host or 'localhost'}, port {self.port}"


class Target(NamedTuple):
    """What a URL says beyond database and credentials."""

    servers: tuple[Host, ...]
    """In the order in which they are tried."""
    session_attributes: str
    """One of SESSION_ATTRIBUTES; where several servers are named, one that can be written to by default."""
    sslmode: str | None
    connect_timeout: float
    """Seconds for each server."""
    application_name: str
    settings: Mapping[str, str]
    """From `options`."""


def without_hosts(text: str) -> tuple[str, str]:
    """A URL with its hosts taken out, and the hosts as it names them."""
    parts = _AUTHORITY.fullmatch(text)
    return (text, "") if parts is None else (parts["before"] + parts["after"], parts["hosts"])


def normalize(url: URL, hosts: str) -> URL:
    """Bring a URL and the hosts that were taken out of it into one form, and check it.

    One host is the URL's own; several, and sockets, are the parameters `host` and `port`, separated by commas.
    Raises ValueError.
    """
    given = dict(url.query)
    if "ssl" in given:  # the driver's name
        given.setdefault("sslmode", given.pop("ssl"))
    if unknown := given.keys() - set(PARAMETERS):
        hint = " (files for TLS are the settings DEVICEOPS_DATABASE_…_FILE)" if unknown & _OF_TLS else ""
        raise ValueError(f"has a parameter that is not supported: {', '.join(sorted(unknown))}{hint}")
    if repeated := sorted(name for name, value in given.items() if not isinstance(value, str)):
        raise ValueError(f"has a parameter more than once: {', '.join(repeated)}")
    query = {name: str(value) for name, value in given.items()}
    named, ports = query.pop("host", None), query.pop("port", None)
    servers = _servers(hosts, ports) if named is None else _servers(named, ports, is_quoted=False)
    if len(servers) == 1 and not (servers[0][0] or "").startswith("/"):
        [(host, port)] = servers
        url = url.set(host=host, port=port, query=query)
    else:
        listed = {"host": ",".join(host or "" for host, _ in servers)}
        if any(port is not None for _, port in servers):
            listed["port"] = ",".join(str(port or DEFAULT_PORT) for _, port in servers)
        url = url.set(query=listed | query)
    target(url)
    return url


def target(url: URL) -> Target:
    """What a normalized URL says. Raises ValueError."""
    query = {name: str(value) for name, value in url.query.items()}
    sslmode = query.get("sslmode")
    if sslmode is not None and sslmode not in SSL_MODES:
        raise ValueError(f"sslmode is one of {', '.join(SSL_MODES)}")
    if "host" in query:
        hosts = query["host"].split(",")
        ports = query["port"].split(",") if "port" in query else [str(DEFAULT_PORT)] * len(hosts)
        servers = tuple(Host(host, int(port)) for host, port in zip(hosts, ports, strict=True))
    else:
        servers = (Host(url.host, url.port or DEFAULT_PORT),)
    attributes = query.get("target_session_attrs", "any" if len(servers) == 1 else "read-write")
    if attributes not in SESSION_ATTRIBUTES:
        raise ValueError(f"target_session_attrs is one of {', '.join(SESSION_ATTRIBUTES)}")
    return Target(
        servers,
        attributes,
        sslmode,
        _timeout(query.get("connect_timeout")),
        query.get("application_name", "deviceops"),
        _checked(dict(_settings(query.get("options", "")))),
    )


def of_one(url: URL, server: Host) -> URL:
    """A normalized URL of several servers, for one of them, with any session attributes."""
    one = {"host": server.host or "localhost", "port": str(server.port)}
    return url.update_query_dict({**one, "target_session_attrs": "any"})


def _checked(settings: Mapping[str, str]) -> Mapping[str, str]:
    """Settings that a URL may make. Raises ValueError."""
    if own := sorted(settings.keys() & _OWN):
        raise ValueError(f"options sets {', '.join(own)}, which is deviceops' own")
    return settings


def shown(url: URL) -> str:
    """A normalized URL as people write it: several hosts in their place, the password hidden."""
    plain = url.set(drivername=url.get_backend_name())
    if "host" not in url.query or str(url.query["host"]).startswith("/"):
        return plain.render_as_string(hide_password=True)
    rest = {name: value for name, value in url.query.items() if name not in ("host", "port")}
    text = plain.set(query=rest).render_as_string(hide_password=True)
    start = text.index("/", text.index("://") + 3)
    hosts = ",".join(
        f"[{server.host}]:{server.port}" if ":" in (server.host or "") else f"{server.host}:{server.port}"
        for server in target(url).servers
    )
    return text[:start] + hosts + text[start:]


_OF_TLS = {"sslrootcert", "sslcert", "sslkey", "sslcrl", "sslpassword", "sslnegotiation"}


def _servers(hosts: str, ports: str | None, *, is_quoted: bool = True) -> list[tuple[str | None, int | None]]:
    """Hosts and ports, None where the URL has none."""
    found: list[tuple[str | None, int | None]] = []
    for each in hosts.split(","):
        if is_quoted:
            host, port = _split_port(each)
            host = unquote(host)
        else:
            host, port = each, None
        if not host and "," in hosts:
            raise ValueError("names a host that is empty")
        found.append((host or None, port))
    if ports is None:
        return found
    given = [_port(port) if port else DEFAULT_PORT for port in ports.split(",")]
    if len(given) == 1:
        given *= len(found)
    if len(given) != len(found):
        raise ValueError(f"names {len(found)} hosts and {len(given)} ports")
    return [(host, port) for (host, _), port in zip(found, given, strict=True)]


def _split_port(text: str) -> tuple[str, int | None]:
    """A host, without the brackets of IPv6, and its port."""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    else:
        host, _, port = text.partition(":")
    return host, _port(port) if port else None


def _port(text: str) -> int:
    if re.fullmatch(r"\d+", text, re.ASCII) is None:  # not quoted: it may be a part of the password
        raise ValueError("has an invalid port, which is not a number")
    if not 0 < int(text) <= _MAX_PORT:
        raise ValueError(f"has an invalid port: {text}")
    return int(text)


def _timeout(text: str | None) -> float:
    """Seconds; as in libpq, 0 and below are no limit, for which there is the most that is supported."""
    if text is None:
        return CONNECT_TIMEOUT
    if re.fullmatch(r"-?\d{1,6}", text, re.ASCII) is None:
        raise ValueError("connect_timeout is a whole number of seconds for each host, 0 for no limit")
    return min(int(text), _MAX_TIMEOUT) if int(text) > 0 else _MAX_TIMEOUT


def _settings(options: str) -> Iterator[tuple[str, str]]:
    """The settings in `options`: -c name=value, -cname=value or --name=value, a backslash before a space."""
    rest = options.strip()
    while rest:
        if (found := _OPTION.match(rest)) is None or "\0" in rest:
            raise ValueError("options has settings only, such as -csearch_path=deviceops")
        yield found[1].replace("-", "_"), re.sub(r"\\(.)", r"\1", found[2], flags=re.DOTALL)
        rest = rest[found.end() :]
