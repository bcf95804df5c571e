"""All settings, from the environment (`DEVICEOPS_…`), files or a `.env` file; values are passed down from here."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from ssl import SSLContext
from typing import Annotated, NamedTuple, Self

import yarl
from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import AfterValidator, BeforeValidator, Field, Json, PrivateAttr, SecretStr, ValidationError
from pydantic_core import to_json
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict
from sqlalchemy.engine import URL, make_url

from worker.config import secret_files, tls, urls
from worker.config.api_tokens import Token
from worker.config.reporters import Reporters, Service
from worker.config.secret_files import PREFIX, variable
from worker.errors import SettingsError
from worker.model.contract import Name
from worker.model.encodings import foreign
from worker.model.parsing import TYPES, set_aliases
from worker.model.text import shown

ENV_FILE = Path(".env")
ENV_FILE_ENCODING = "utf-8-sig"  # a byte order mark is no part of the first name

_EMPTY_IS_NONE = BeforeValidator(lambda value: None if value == "" else value)
_File = Annotated[Path | None, _EMPTY_IS_NONE]
Days = Annotated[Annotated[float, Field(ge=0, le=100_000)] | None, _EMPTY_IS_NONE]


class Address(NamedTuple):
    """Where to listen; `is_chosen` says whether somebody set the port, so that no other one will do."""

    host: str
    port: int
    is_chosen: bool


def _type_name(name: str) -> str:
    if name not in TYPES:
        raise ValueError(f"{shown(name)} is not a message type (expected {', '.join(TYPES)})")
    return name


TypeName = Annotated[str, AfterValidator(_type_name)]


class Settings(BaseSettings):
    """What an operator can set. Times are in the unit that the description names."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=ENV_FILE, env_file_encoding=ENV_FILE_ENCODING, extra="ignore", frozen=True
    )

    database_url: Annotated[SecretStr, AfterValidator(urls.database_url)] = Field(
        SecretStr("sqlite:///deviceops.db"),
        description="where states, history and counters live: sqlite:///FILE or postgresql://user@host/name",
        validate_default=True,
    )
    amqp_url: Annotated[SecretStr, AfterValidator(urls.amqp_url)] = Field(
        SecretStr("amqp://guest:guest@localhost:5672/"), description="the RabbitMQ broker"
    )
    database_ca_file: _File = Field(
        None,
        description="PEM file of the authorities that vouch for PostgreSQL; with it the URL's sslmode is "
        "verify-full unless it names another one",
    )
    database_cert_file: _File = Field(None, description="PEM file of our certificate, for a PostgreSQL that asks")
    database_key_file: _File = Field(None, description="PEM file of its key, without a passphrase")
    amqp_ca_file: _File = Field(
        None,
        description="PEM file of the authorities that vouch for the broker (amqps://…); empty for the system's",
    )
    amqp_cert_file: _File = Field(None, description="PEM file of our certificate, for a broker that asks")
    amqp_key_file: _File = Field(None, description="PEM file of its key, without a passphrase")
    management_url: Annotated[Annotated[SecretStr, AfterValidator(urls.management_url)] | None, _EMPTY_IS_NONE] = (
        Field(
            None,
            description="RabbitMQ's management plugin, whose policies `deviceops check` reads: "
            "http://user:password@host:15672/; empty for its usual port on the broker's host, as the same user",
        )
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
        description="milliseconds that a batch of more than 50 messages stays open while more come, at most",
    )
    database_timeout: float = Field(
        60,
        gt=0,
        le=3_600,
        description="seconds without an answer after which a transaction is given up: `deviceops serve` answers "
        "503, `deviceops run` tries again, and each next try may take twice as long",
    )
    refusal_timeout: float = Field(
        60,
        ge=0,
        le=3_600,
        description="seconds that a password or a certificate which the broker or the database refuses, after it "
        "let us in before, is read anew and tried again, before `deviceops run` exits",
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
    http_probe_port: int = Field(
        8082,
        ge=0,
        le=65_535,
        description="`deviceops serve` answers the same, at that address, on this port; 0 for any that is free, "
        "as when the default one is taken",
    )
    services: Annotated[Json[dict[str, Service]] | None, NoDecode, _EMPTY_IS_NONE] = Field(
        None,
        description="who may report, as JSON: for each service_id what it may say, such as "
        '{"drift-service": {"operation_types": ["CONVERGE"], "states": ["SUCCESS", "FAILURE"]}, "console": {}}; '
        "what is left out is not restricted; empty for anybody",
    )
    message_types: Annotated[Json[dict[Name, TypeName]] | None, NoDecode, _EMPTY_IS_NONE] = Field(
        None,
        description="names that frameworks put into a message's type, as JSON: for each what it is, such as "
        '{"MyApp.DeviceReport, MyApp": "device-operation.report"}',
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
        description="days that `deviceops prune` keeps the reports of what is settled, from when they came; "
        "empty for ever",
    )
    log_level: Annotated[
        str, BeforeValidator(lambda level: level.upper() if isinstance(level, str) else level)
    ] = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="DEBUG, INFO, WARNING or ERROR")
    log_format: str = Field(
        "auto",
        pattern="^(auto|json|text)$",
        description="json: one object a line, text: for people; auto: text on a terminal, else json",
    )

    _kept_in: Mapping[str, Path] = PrivateAttr({})
    """The files that settings were read from."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # ours stand in its place
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Where settings come from; what comes first wins."""
        named, *handed_over, named_in_env_file = (
            secret_files.FilesSource(settings_cls, files) for files in _files()
        )
        return init_settings, env_settings, named, *handed_over, dotenv_settings, named_in_env_file

    @classmethod
    def load(cls) -> Self:
        """Read the environment, files and `.env`. Raises SettingsError, which names each wrong setting.

        A name of ours that no setting has is wrong too: a misspelt one would leave its setting at the default.
        """
        _check_env_file()
        if unknown := secret_files.unknown({**_env_file(), **os.environ}, cls.model_fields):
            raise SettingsError("; ".join(unknown))
        try:
            settings = cls()
        except ValidationError as error:
            wrong = "; ".join(
                f"{_place(finding['loc'])}: {finding['msg'].removeprefix('Value error, ')}"
                for finding in error.errors(include_url=False, include_input=False)
            )
            raise SettingsError(wrong) from None
        settings._kept_in = {name: path for name, path in _origins().items() if isinstance(path, Path)}
        set_aliases(settings.message_types or {})
        for make in (settings.amqp_tls, settings.database_tls):
            make()  # what is wrong with a file shows here, before any work
        return settings

    def with_database_login(self) -> Self:
        """The same, with the user and the password of the database's address as its file has them now.

        Another host or name takes a new start: a worker is not to change its database under way. Raises
        SettingsError if the file is invalid, as it may be while it is rewritten.
        """
        if (now := self._kept("database_url", urls.database_url)) is None:
            return self
        url = make_url(now)
        given = self.sqlalchemy_url.set(username=url.username, password=url.password)
        return self.model_copy(update={"database_url": SecretStr(given.render_as_string(hide_password=False))})

    def with_broker_login(self) -> Self:
        """The same of the broker's address."""
        if (now := self._kept("amqp_url", urls.amqp_url)) is None:
            return self
        broker, address = yarl.URL(now), yarl.URL(self.amqp_url.get_secret_value())
        given = address.with_user(broker.user).with_password(broker.password)
        return self.model_copy(update={"amqp_url": SecretStr(str(given))})

    def _kept(self, name: str, checked: Callable[[SecretStr], SecretStr]) -> str | None:
        """The value of a setting that is kept in a file, as that has it now; None if it is kept elsewhere."""
        path = self._kept_in.get(name)
        if path is None:
            return None
        try:
            return checked(SecretStr(secret_files.content(variable(name), path))).get_secret_value()
        except ValueError as error:
            raise SettingsError(f"{variable(name)}: {error}") from None

    @property
    def reporters(self) -> Reporters | None:
        """Who may report, None for anybody."""
        if self.services is None and not self.verify_user_id:
            return None
        return Reporters(self.services, self.verify_user_id)

    @property
    def worker_probes(self) -> Address:
        """Where `run` answers probes."""
        return Address(self.probe_host, self.probe_port, "probe_port" in self.model_fields_set)

    @property
    def api_probes(self) -> Address:
        """Where `serve` does."""
        return Address(self.probe_host, self.http_probe_port, "http_probe_port" in self.model_fields_set)

    def amqp_tls(self) -> SSLContext | None:
        """How to speak TLS with the broker, None where it is spoken without.

        Reads the files anew, as certificates are renewed. Raises SettingsError if one is of no use.
        """
        files = tls.Files(f"{PREFIX}AMQP", self.amqp_ca_file, self.amqp_cert_file, self.amqp_key_file)
        if yarl.URL(self.amqp_url.get_secret_value()).scheme == "amqps":
            return files.context()
        if files.first:
            raise SettingsError(f"{files.first}: is for amqps://…, and {PREFIX}AMQP_URL begins with amqp://")
        return None

    def database_tls(self) -> SSLContext | None:
        """How to speak TLS with PostgreSQL, None where its URL says all. Raises SettingsError as amqp_tls()."""
        files = tls.Files(
            f"{PREFIX}DATABASE", self.database_ca_file, self.database_cert_file, self.database_key_file
        )
        if files.first is None:
            return None
        url = self.sqlalchemy_url
        if url.get_backend_name() == "sqlite":
            raise SettingsError(f"{files.first}: is for PostgreSQL, and {PREFIX}DATABASE_URL names an SQLite file")
        mode = str(url.query.get("ssl", "verify-full"))
        if mode not in ("require", "verify-ca", "verify-full"):
            raise SettingsError(f"{files.first}: is for TLS, and {PREFIX}DATABASE_URL says sslmode={mode}")
        if files.ca is None and mode != "require":
            raise SettingsError(
                f"{PREFIX}DATABASE_CA_FILE: is needed to know the server by; sslmode=require would do without"
            )
        # As libpq has it, a CA file makes `require` verify too, all but the host's name.
        return files.context(verified=files.ca is not None, host_checked=mode == "verify-full")

    @property
    def sqlalchemy_url(self) -> URL:
        """The database's URL with its driver; its `repr` hides the password."""
        return make_url(self.database_url.get_secret_value())

    def shown(self) -> Mapping[str, str]:
        """Each setting by the name of its variable, passwords hidden."""
        values = {name: _text(getattr(self, name)) for name in type(self).model_fields}
        values["database_url"] = self.sqlalchemy_url.render_as_string(hide_password=True)
        values["amqp_url"] = without_password(self.amqp_url)
        if self.management_url is not None:
            values["management_url"] = without_password(self.management_url)
        if self.api_tokens:
            hidden = {name: {**token.model_dump(), "hash": "***"} for name, token in self.api_tokens.items()}
            values["api_tokens"] = _text(hidden)
        return {variable(name): value for name, value in values.items()}

    @classmethod
    def origins(cls) -> Mapping[str, str]:
        """Where each setting comes from, by its variable; those that have their default are left out."""
        return {variable(name): str(place) for name, place in _origins().items()}


def _origins() -> Mapping[str, Path | str]:
    """The file, or the place, that each setting comes from."""
    fields = Settings.model_fields
    named, *handed_over, named_in_env_file = _files()
    environment, env_file = ({name.upper() for name in given} for given in (os.environ, _env_file()))
    places: list[Mapping[str, Path | str]] = [
        {name: "the environment" for name in fields if variable(name) in environment},
        named,
        *handed_over,
        {name: str(ENV_FILE) for name in fields if variable(name) in env_file},
        named_in_env_file,
    ]
    return {name: place for found in reversed(places) for name, place in found.items()}


def _files() -> list[dict[str, Path]]:
    """The files that settings are kept in: for each way to say so those it says; what comes first wins."""
    fields = Settings.model_fields
    return [
        secret_files.named_by(os.environ, fields),
        secret_files.credentials(fields),
        secret_files.container_secrets(fields),
        secret_files.named_by(_env_file(), fields),
    ]


def _env_file() -> Mapping[str, str | None]:
    return dotenv_values(ENV_FILE, encoding=ENV_FILE_ENCODING) if ENV_FILE.exists() else {}


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return to_json(value, exclude_none=True).decode()
    return str(value).lower() if isinstance(value, bool) else str(value)


def _place(location: tuple[int | str, ...]) -> str:
    """The variable that a setting comes from, and where in it."""
    return " ".join([variable(str(location[0])), *map(str, location[1:])])


def without_password(url: SecretStr) -> str:
    """A broker's URL that can be shown."""
    parsed = yarl.URL(url.get_secret_value())
    return str(parsed.with_password("***") if parsed.password else parsed)


def _check_env_file() -> None:
    """Refuse a `.env` that cannot be read whole: python-dotenv itself only logs and goes on."""
    if not ENV_FILE.exists():
        return
    try:
        if (found := foreign(ENV_FILE.read_bytes())) is not None:
            raise SettingsError(f"{ENV_FILE}: is {found}, and has to be plain text in UTF-8")
        with ENV_FILE.open(encoding=ENV_FILE_ENCODING) as stream:
            broken = next((binding for binding in parse_stream(stream) if binding.error), None)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{ENV_FILE}: cannot be read: {error}") from None
    if broken is not None:
        raise SettingsError(f"{ENV_FILE}, line {broken.original.line}: is not NAME=value")
