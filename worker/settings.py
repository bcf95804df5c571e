"""All settings, from the environment (`DEVICEOPS_…`) or a `.env` file; values are passed down from here."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

import yarl
from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import AfterValidator, BeforeValidator, Field, Json, SecretStr, ValidationError
from pydantic_core import to_json
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from worker.contract import Name
from worker.errors import SettingsError
from worker.tokens import Token
from worker.trust import Service, Trust

PREFIX = "DEVICEOPS_"
ENV_FILE = Path(".env")

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
}


def _database_url(secret: SecretStr) -> SecretStr:
    try:
        url = make_url(secret.get_secret_value())
    except ArgumentError:
        raise ValueError("is not a database URL such as postgresql://user@host/name") from None
    kind = url.drivername.split("+")[0]
    if kind not in _DRIVERS:
        raise ValueError(f"{kind!r} is not supported: use sqlite:///FILE or postgresql://user@host/name")
    if kind == "sqlite" and url.database in (None, "", ":memory:"):
        raise ValueError("an SQLite database in memory would lose every report: name a file, sqlite:///FILE")
    if "sslmode" in url.query:  # libpq's name for what the driver calls ssl
        url = url.set(query={"ssl": url.query["sslmode"]} | {k: v for k, v in url.query.items() if k != "sslmode"})
    if unknown := url.query.keys() - ({"ssl"} if kind != "sqlite" else set()):
        raise ValueError(f"has a parameter that is not supported: {', '.join(sorted(unknown))}")
    return SecretStr(url.set(drivername=_DRIVERS[kind]).render_as_string(hide_password=False))


def _amqp_url(secret: SecretStr) -> SecretStr:
    try:
        url = yarl.URL(secret.get_secret_value())
    except ValueError:
        raise ValueError("is not a broker URL such as amqp://user:password@host:5672/") from None
    if url.scheme not in ("amqp", "amqps") or not url.host:
        raise ValueError("is not a broker URL such as amqp://user:password@host:5672/")
    return secret


_EMPTY_IS_NONE = BeforeValidator(lambda value: None if value == "" else value)
Days = Annotated[Annotated[float, Field(ge=0, le=100_000)] | None, _EMPTY_IS_NONE]


class Settings(BaseSettings):
    """What an operator can set. Times are in the unit that the description names."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=ENV_FILE, env_file_encoding="utf-8", extra="ignore", frozen=True
    )

    database_url: Annotated[SecretStr, AfterValidator(_database_url)] = Field(
        SecretStr("sqlite:///deviceops.db"),
        description="where states, history and counters live: sqlite:///FILE or postgresql://user@host/name",
        validate_default=True,
    )
    amqp_url: Annotated[SecretStr, AfterValidator(_amqp_url)] = Field(
        SecretStr("amqp://guest:guest@localhost:5672/"), description="the RabbitMQ broker"
    )
    topology_prefix: str = Field(
        "device-operations",
        pattern=r"^[A-Za-z0-9._-]{1,200}$",
        description="how the names of exchanges and queues begin",
    )
    batch_size: int = Field(
        1_000, ge=1, le=1_000, description="messages in one transaction, at most; prefetch is twice as many"
    )
    batch_wait: float = Field(
        50,
        ge=0,
        le=60_000,
        description="milliseconds that a batch stays open while messages trickle in, at most",
    )
    database_timeout: float = Field(
        60,
        gt=0,
        le=3_600,
        description="seconds without an answer after which a transaction is given up: `deviceops serve` answers "
        "503, `deviceops run` tries again, and each next try may take twice as long",
    )
    hold_timeout: float = Field(
        600,
        gt=0,
        le=3_600,
        description="seconds that `deviceops run` holds messages while the database is away, before it gives them "
        "back; less than half of the broker's consumer_timeout (30 minutes)",
    )
    stall_timeout: float = Field(
        300,
        gt=0,
        le=86_400,
        description="seconds without progress after which `deviceops run` says so and exits, to be started again",
    )
    drain_timeout: float = Field(
        25,
        gt=0,
        le=3_600,
        description="seconds that `deviceops run` takes to finish after SIGTERM, at most",
    )
    probe_host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="the address on which `deviceops run` answers /livez, /readyz and /metrics",
    )
    probe_port: int = Field(
        8081, ge=0, le=65_535, description="its port; 0 for any that is free, as when the default one is taken"
    )
    services: Annotated[Json[dict[str, Service]] | None, NoDecode, _EMPTY_IS_NONE] = Field(
        None,
        description="who may report, as JSON: for each service_id what it may say, such as "
        '{"drift-service": {"operation_types": ["CONVERGE"], "states": ["SUCCESS", "FAILURE"]}, "console": {}}; '
        "what is left out is not restricted; empty for anybody",
    )
    verify_user_id: bool = Field(
        False, description="true: a report's service_id must be its AMQP user_id, which RabbitMQ vouches for"
    )
    http_host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="the address that `deviceops serve` listens on; another than loopback needs tokens",
    )
    http_port: int = Field(8080, ge=0, le=65_535, description="its port; 0 for any that is free")
    http_proxies: str = Field(
        "127.0.0.1",
        description="addresses or networks of proxies, comma-separated, whose X-Forwarded-… headers it believes; "
        "* for any",
    )
    api_tokens: Annotated[Json[dict[Name, Token]] | None, NoDecode, _EMPTY_IS_NONE] = Field(
        None,
        description="who may call the HTTP API, as JSON: for each name a token's scopes and its hash, as "
        "`deviceops token create` prints them; empty for anybody on this machine",
    )
    stale_after: float = Field(
        3_600,
        gt=0,
        le=10**9,
        description="seconds that a report may wait for a registration before it counts as stale",
    )
    keep_dead_letters: Days = Field(
        None,
        description="days that `deviceops prune` keeps resolved and discarded dead letters; empty for ever",
    )
    keep_bodies: Days = Field(
        None, description="days that `deviceops prune` keeps the bodies of those; empty for ever"
    )
    keep_activity: Days = Field(
        None,
        description="days that `deviceops prune` keeps the history of settled device operations; empty for ever",
    )
    log_level: str = Field(
        "INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="DEBUG, INFO, WARNING or ERROR"
    )

    @classmethod
    def load(cls) -> Self:
        """Read the environment and `.env`. Raises SettingsError, which names each wrong setting."""
        _check_env_file()
        try:
            return cls()
        except ValidationError as error:
            wrong = "; ".join(
                f"{_variable(finding['loc'])}: {finding['msg'].removeprefix('Value error, ')}"
                for finding in error.errors(include_url=False, include_input=False)
            )
            raise SettingsError(wrong) from None

    @property
    def trust(self) -> Trust | None:
        """Who may report, None for anybody."""
        if self.services is None and not self.verify_user_id:
            return None
        return Trust(self.services, self.verify_user_id)

    @property
    def sqlalchemy_url(self) -> URL:
        """The database's URL with its driver; its `repr` hides the password."""
        return make_url(self.database_url.get_secret_value())

    def shown(self) -> Mapping[str, str]:
        """Each setting by the name of its variable, passwords hidden."""
        values = {name: _text(getattr(self, name)) for name in type(self).model_fields}
        values["database_url"] = self.sqlalchemy_url.render_as_string(hide_password=True)
        values["amqp_url"] = without_password(self.amqp_url)
        if self.api_tokens:
            hidden = {name: {**token.model_dump(), "hash": "***"} for name, token in self.api_tokens.items()}
            values["api_tokens"] = _text(hidden)
        return {f"{PREFIX}{name.upper()}": value for name, value in values.items()}


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return to_json(value, exclude_none=True).decode()
    return str(value).lower() if isinstance(value, bool) else str(value)


def _variable(location: tuple[int | str, ...]) -> str:
    """The variable that a setting comes from, and where in it."""
    return " ".join([f"{PREFIX}{str(location[0]).upper()}", *map(str, location[1:])])


def without_password(url: SecretStr) -> str:
    """A broker's URL that can be shown."""
    parsed = yarl.URL(url.get_secret_value())
    return str(parsed.with_password("***") if parsed.password else parsed)


def unknown_variables() -> list[str]:
    """Variables of our prefix that no setting reads: most likely misspelt."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    given = {*os.environ, *(dotenv_values(ENV_FILE) if ENV_FILE.exists() else ())}
    return sorted(name for name in given if name.upper().startswith(PREFIX) and name.upper() not in known)


def _check_env_file() -> None:
    """Refuse a `.env` that cannot be read whole: python-dotenv itself only logs and goes on."""
    if not ENV_FILE.exists():
        return
    try:
        with ENV_FILE.open(encoding="utf-8") as stream:
            broken = next((binding for binding in parse_stream(stream) if binding.error), None)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{ENV_FILE}: cannot be read: {error}") from None
    if broken is not None:
        raise SettingsError(f"{ENV_FILE}, line {broken.original.line}: is not NAME=value")
