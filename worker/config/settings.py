"""The settings: from the environment (`DEVICEOPS_…`), secret files and `.env`."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from ssl import SSLContext
from typing import Annotated, Self

import yarl
from pydantic import AfterValidator, Field, Json, PrivateAttr, SecretStr, ValidationError
from pydantic_core import to_json
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict
from sqlalchemy.engine import URL, make_url

from worker.config import env_file, origins, secret_files, tls, urls
from worker.config.api_tokens import Token
from worker.config.reporters import Reporters, Service
from worker.config.secret_files import PREFIX, variable
from worker.config.types import (
    EMPTY_IS_NONE,
    JSON_OR_NONE,
    Address,
    Days,
    LogFormat,
    LogLevel,
    MessageType,
    OptionalFile,
    TopologyPrefix,
    TypeOrAny,
)
from worker.config.webhooks import Webhook, WebhookName, check_told
from worker.errors import SettingsError
from worker.model.changes import Told, tell
from worker.model.contract import Name
from worker.model.findings import problem
from worker.model.parsing import set_aliases
from worker.model.timing import AnnouncedTimeouts, Defaults, set_defaults


class Settings(BaseSettings):
    """All settings. The descriptions name the units."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=env_file.PATH, env_file_encoding=env_file.ENCODING, extra="ignore", frozen=True
    )

    database_url: Annotated[SecretStr, AfterValidator(urls.database_url)] = Field(
        SecretStr("sqlite:///deviceops.db"),
        description="the database: sqlite:///FILE or postgresql://user@host/name; several hosts, sockets and "
        "parameters as for libpq: clusters.md",
        validate_default=True,
    )
    amqp_url: Annotated[SecretStr, AfterValidator(urls.amqp_url)] = Field(
        SecretStr("amqp://guest:guest@localhost:5672/"),
        description="the RabbitMQ broker; several nodes of a cluster: amqp://user:password@a:5672,b:5672/",
    )
    database_ca_file: OptionalFile = Field(
        None,
        description="PEM file of the certificate authorities for PostgreSQL; sets sslmode=verify-full unless "
        "the URL has another one",
    )
    database_cert_file: OptionalFile = Field(None, description="PEM file of the client certificate for PostgreSQL")
    database_key_file: OptionalFile = Field(None, description="PEM file of its key, without a passphrase")
    amqp_ca_file: OptionalFile = Field(
        None,
        description="PEM file of the certificate authorities for the broker (amqps://…); empty: the system's",
    )
    amqp_cert_file: OptionalFile = Field(None, description="PEM file of the client certificate for the broker")
    amqp_key_file: OptionalFile = Field(None, description="PEM file of its key, without a passphrase")
    management_url: Annotated[Annotated[SecretStr, AfterValidator(urls.management_url)] | None, EMPTY_IS_NONE] = (
        Field(
            None,
            description="RabbitMQ's management plugin, from which `deviceops check` reads policies: "
            "http://user:password@host:15672/; empty: its default port on the broker's host, with the same user",
        )
    )
    topology_prefix: TopologyPrefix = Field(
        "device-operations", description="prefix of the names of exchanges and queues"
    )
    partitions: int = Field(
        1,
        ge=1,
        le=64,
        description="queues over which reports are spread by their routing key, shared by all workers; more than "
        "one needs a plugin of the broker: partitions.md",
    )
    batch_size: int = Field(
        1_000,
        ge=1,
        le=1_000,
        description="maximum number of messages in one transaction; the prefetch is twice as high",
    )
    batch_wait: float = Field(
        50,
        ge=0,
        le=60_000,
        description="maximum milliseconds that a batch of more than 50 messages waits for more",
    )
    database_timeout: float = Field(
        60,
        gt=0,
        le=3_600,
        description="seconds without an answer after which a transaction is abandoned: `deviceops serve` answers "
        "503, `deviceops run` retries with twice the timeout each time",
    )
    refusal_timeout: float = Field(
        60,
        ge=0,
        le=3_600,
        description="seconds for which a password or certificate that was accepted before and is refused now is "
        "read and tried again, before `deviceops run` exits",
    )
    hold_timeout: float = Field(
        600,
        gt=0,
        le=3_600,
        description="seconds that `deviceops run` holds messages while the database is unavailable, before it "
        "returns them to the broker; less than half of the broker's consumer_timeout (30 minutes)",
    )
    stall_timeout: float = Field(
        300,
        gt=0,
        le=86_400,
        description="seconds without progress after which `deviceops run` exits, for its supervisor to restart it",
    )
    drain_timeout: float = Field(
        25,
        gt=0,
        le=3_600,
        description="maximum seconds that `deviceops run` takes to finish after SIGTERM",
    )
    probe_host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="address of /livez, /readyz and /metrics",
    )
    probe_port: int = Field(
        8081,
        ge=0,
        le=65_535,
        description="their port in `deviceops run`; 0: any free port, as when the default one is in use",
    )
    http_probe_port: int = Field(
        8082,
        ge=0,
        le=65_535,
        description="their port in `deviceops serve`; 0: any free port, as when the default one is in use",
    )
    services: Annotated[Json[dict[str, Service]] | None, NoDecode, JSON_OR_NONE] = Field(
        None,
        description="services that may report, as JSON: for each service_id what it may report, such as "
        '{"drift-service": {"operation_types": ["CONVERGE"], "states": ["SUCCESS", "FAILURE"]}, "console": {}}; '
        "an absent field is no restriction; empty: any service",
    )
    message_types: Annotated[Json[dict[Name, MessageType]] | None, NoDecode, JSON_OR_NONE] = Field(
        None,
        description="message types of frameworks, as JSON: for each name one of the types of deviceops, such as "
        '{"MyApp.DeviceReport, MyApp": "device-operation.report"}',
    )
    verify_user_id: bool = Field(
        False, description="true: a report's service_id must equal its AMQP user_id, which RabbitMQ verifies"
    )
    http_host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="address of `deviceops serve`; one other than loopback requires tokens",
    )
    http_port: int = Field(8080, ge=0, le=65_535, description="its port; 0: any free port")
    http_proxies: str = Field(
        "127.0.0.1",
        description="addresses or networks of the proxies, comma-separated, whose X-Forwarded-… headers are "
        "trusted; *: any",
    )
    api_tokens: Annotated[Json[dict[Name, Token]] | None, NoDecode, JSON_OR_NONE] = Field(
        None,
        description="tokens of the HTTP API, as JSON: for each name the scopes and the hash, as "
        "`deviceops token create` prints them; empty: no token, for callers on this machine",
    )
    stale_after: float = Field(
        3_600,
        gt=0,
        le=10**9,
        description="seconds after which a parked report is stale",
    )
    keep_dead_letters: Days = Field(
        None,
        description="days that `deviceops prune` keeps resolved and discarded dead letters; 0: removes all; "
        "empty: keeps all",
    )
    keep_bodies: Days = Field(
        None, description="days that `deviceops prune` keeps their bodies; 0: removes all; empty: keeps all"
    )
    keep_activity: Days = Field(
        None,
        description="days after receipt that `deviceops prune` keeps the reports of settled device operations; "
        "0: removes all; empty: keeps all",
    )
    timeouts: Annotated[Json[dict[TypeOrAny, AnnouncedTimeouts]] | None, NoDecode, JSON_OR_NONE] = Field(
        None,
        description="timeouts that announcements do not name, as JSON: for each operation type, * for the others, "
        'the seconds such as {"CONVERGE": {"pending": 600, "step": 900}, "*": {"total": 86400}}; empty: '
        "none; the same for all workers, see deploy/timeouts.md",
    )
    timeout_grace: float = Field(
        30,
        ge=0,
        le=86_400,
        description="seconds that `deviceops run` consumes without an interruption before it times anything out",
    )
    schedule_ends: bool = Field(
        False, description="true: end_datetime of an operation's schedule_args is a deadline"
    )
    changes: Told = Field(
        Told.OPERATIONS,
        description="what others are told: none, operations (and dead letters), all (device operations too); the "
        "same for all processes, see deploy/changes.md",
    )
    keep_changes: float = Field(
        1,
        ge=0,
        le=30,
        description="days for which changes that are published can be read again, over HTTP and by "
        "`deviceops changes`",
    )
    changes_limit: int = Field(
        1_000_000,
        ge=1_000,
        le=10**9,
        description="number of changes that are kept; of more that cannot be published, the oldest ones of device "
        "operations are dropped",
    )
    webhooks: Annotated[Json[dict[WebhookName, Webhook]] | None, NoDecode, JSON_OR_NONE] = Field(
        None,
        description="where changes are sent by HTTP, as JSON: for each name the URL, the secret and, optionally, "
        'the types, such as {"ops": {"url": "https://example.com/hooks", "secret": "whsec_…", "types": '
        '["operation.changed"]}}; empty: nowhere; the same for all workers, see deploy/webhooks.md',
    )
    webhooks_limit: int = Field(
        100_000,
        ge=100,
        le=10**9,
        description="number of changes that are kept for a webhook that does not take them; of more, the oldest "
        "ones are dropped, those of device operations first",
    )
    log_level: LogLevel = Field("INFO", description="DEBUG, INFO, WARNING or ERROR")
    log_format: LogFormat = Field(
        "auto", description="json: one object a line; text: for people; auto: text on a terminal, else json"
    )

    _files: Mapping[str, Path] = PrivateAttr({})
    """The files from which settings were read."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # replaced by secret_files
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The sources of settings; the first has precedence."""
        named, *handed_over, named_in_env_file = (
            secret_files.FilesSource(settings_cls, files) for files in origins.files(settings_cls.model_fields)
        )
        return init_settings, env_settings, named, *handed_over, dotenv_settings, named_in_env_file

    @classmethod
    def load(cls) -> Self:
        """Read all sources. Raises SettingsError, which names each invalid setting.

        An unknown name with the prefix is an error too: a misspelt one would leave its setting at the default.
        """
        env_file.check()
        if unknown := secret_files.unknown({**env_file.read(), **os.environ}, cls.model_fields):
            raise SettingsError("; ".join(unknown))
        try:
            settings = cls()
        except ValidationError as error:
            wrong = "; ".join(
                f"{_place(finding['loc'])}: {problem(finding)}"
                for finding in error.errors(include_url=False, include_input=False)
            )
            raise SettingsError(wrong) from None
        settings._files = {
            name: path for name, path in origins.origins(cls.model_fields).items() if isinstance(path, Path)
        }
        set_aliases(settings.message_types or {})
        set_defaults(Defaults(timeouts=settings.timeouts or {}, schedule_ends=settings.schedule_ends))
        check_told(settings.webhooks or {}, settings.changes)
        tell(settings.changes)
        for make in (settings.amqp_tls, settings.database_tls):
            make()  # raises SettingsError for an invalid file, before any work
        return settings

    def with_database_login(self) -> Self:
        """A copy with the user and password of the database URL as its file has them now.

        Another host or database takes effect at the next start only: a worker must not change its database while
        it runs. Raises SettingsError if the file is invalid, as during a rewrite.
        """
        if (now := self._reread("database_url", urls.database_url)) is None:
            return self
        url = make_url(now)
        given = self.sqlalchemy_url.set(username=url.username, password=url.password)
        return self.model_copy(update={"database_url": SecretStr(given.render_as_string(hide_password=False))})

    def with_broker_login(self) -> Self:
        """A copy with the user and password of the broker URL as its file has them now."""
        if (now := self._reread("amqp_url", urls.amqp_url)) is None:
            return self
        return self.model_copy(update={"amqp_url": urls.with_broker_login(self.amqp_url, SecretStr(now))})

    def _reread(self, name: str, check: Callable[[SecretStr], SecretStr]) -> str | None:
        """The current value of a setting from its file; None if it does not come from a file."""
        path = self._files.get(name)
        if path is None:
            return None
        try:
            return check(SecretStr(secret_files.content(variable(name), path))).get_secret_value()
        except ValueError as error:
            raise SettingsError(f"{variable(name)}: {error}") from None

    @property
    def reporters(self) -> Reporters | None:
        """The services that may report, None for any."""
        if self.services is None and not self.verify_user_id:
            return None
        return Reporters(self.services, self.verify_user_id)

    @property
    def worker_probes(self) -> Address:
        """Where `run` serves probes."""
        return Address(self.probe_host, self.probe_port, "probe_port" in self.model_fields_set)

    @property
    def api_probes(self) -> Address:
        """Where `serve` serves probes."""
        return Address(self.probe_host, self.http_probe_port, "http_probe_port" in self.model_fields_set)

    def amqp_tls(self) -> SSLContext | None:
        """The TLS context for the broker, None without TLS.

        Reads the files each time, because certificates are renewed. Raises SettingsError if one is invalid.
        """
        files = tls.Files(f"{PREFIX}AMQP", self.amqp_ca_file, self.amqp_cert_file, self.amqp_key_file)
        if self.amqp_url.get_secret_value().lower().startswith("amqps:"):
            return files.context()
        if files.first:
            raise SettingsError(f"{files.first}: is for amqps://…, and {PREFIX}AMQP_URL begins with amqp://")
        return None

    def database_tls(self) -> SSLContext | None:
        """The TLS context for PostgreSQL, None without files for TLS. Raises SettingsError as amqp_tls() does."""
        files = tls.Files(
            f"{PREFIX}DATABASE", self.database_ca_file, self.database_cert_file, self.database_key_file
        )
        if files.first is None:
            return None
        url = self.sqlalchemy_url
        if url.get_backend_name() == "sqlite":
            raise SettingsError(f"{files.first}: is for PostgreSQL, and {PREFIX}DATABASE_URL names an SQLite file")
        mode = str(url.query.get("sslmode", "verify-full"))
        if mode not in ("require", "verify-ca", "verify-full"):
            raise SettingsError(f"{files.first}: is for TLS, and {PREFIX}DATABASE_URL says sslmode={mode}")
        if files.ca is None and mode != "require":
            raise SettingsError(
                f"{PREFIX}DATABASE_CA_FILE: is required to verify the server; with sslmode=require it is not"
            )
        # As in libpq, with a CA file `require` verifies the certificate too, except the host's name.
        return files.context(verified=files.ca is not None, host_checked=mode == "verify-full")

    @property
    def brokers(self) -> Sequence[yarl.URL]:
        """The URLs of the broker's nodes."""
        return urls.broker_nodes(self.amqp_url)

    @property
    def sqlalchemy_url(self) -> URL:
        """The database URL with its driver; its `repr` hides the password."""
        return make_url(self.database_url.get_secret_value())

    def shown(self) -> Mapping[str, str]:
        """Each setting by its variable, with secrets hidden."""
        values = {name: _text(getattr(self, name)) for name in type(self).model_fields}
        values["database_url"] = self.sqlalchemy_url.render_as_string(hide_password=True)
        values["amqp_url"] = urls.without_password(self.amqp_url)
        if self.management_url is not None:
            values["management_url"] = urls.without_password(self.management_url)
        if self.api_tokens:
            hidden = {name: {**token.model_dump(), "hash": "***"} for name, token in self.api_tokens.items()}
            values["api_tokens"] = _text(hidden)
        if self.webhooks:
            values["webhooks"] = _text({name: webhook.shown() for name, webhook in self.webhooks.items()})
        return {variable(name): value for name, value in values.items()}

    @classmethod
    def origins(cls) -> Mapping[str, str]:
        """The source of each setting that is set, by its variable."""
        return {variable(name): str(origin) for name, origin in origins.origins(cls.model_fields).items()}


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return to_json(value, exclude_none=True).decode()
    return str(value).lower() if isinstance(value, bool) else str(value)


def _place(location: tuple[int | str, ...]) -> str:
    """The variable of an invalid setting, and the location in its value."""
    return " ".join([variable(str(location[0])), *map(str, location[1:])])
