"""Webhooks as they are set: where changes are sent, signed with which secrets. Errors never quote a value."""

import re
from base64 import b64decode
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Annotated, Self

import yarl
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from worker.config.public_addresses import is_public
from worker.config.urls import http_url
from worker.errors import SettingsError
from worker.model.changes import ChangeType, Told

SECRET_PREFIX = "whsec_"  # noqa: S105  # of each secret
MIN_SECRET, MAX_SECRET = 24, 64
"""Bytes of a secret."""


def _name(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", text) is None:
        raise ValueError("a name has 1 to 64 of the characters A-Z a-z 0-9 . _ -")
    return text


def _url(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value().strip()
    url = http_url(text)
    if url is None or url.fragment:
        raise ValueError("is not a URL such as https://example.com/hooks")
    return SecretStr(text)


def _secret(secret: SecretStr) -> SecretStr:
    try:
        key_of(secret)
    except ValueError:
        raise ValueError(
            f"expected {SECRET_PREFIX} and base64 of {MIN_SECRET} to {MAX_SECRET} bytes, as `deviceops webhooks "
            "secret` prints it"
        ) from None
    return secret


def key_of(secret: SecretStr) -> bytes:
    """The key of a secret. Raises ValueError."""
    text = secret.get_secret_value().strip()
    encoded = text.removeprefix(SECRET_PREFIX)
    key = b64decode(encoded, validate=True)
    if encoded == text or not MIN_SECRET <= len(key) <= MAX_SECRET:
        raise ValueError("no secret")
    return key


WebhookName = Annotated[str, AfterValidator(_name)]


class Webhook(BaseModel):
    """Where changes are sent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Annotated[SecretStr, AfterValidator(_url)]
    """It may have a password or a token in it."""
    secret: Annotated[
        tuple[Annotated[SecretStr, AfterValidator(_secret)], ...],
        BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
        Field(min_length=1, max_length=4),
    ]
    """Messages are signed with each: while receivers are given a new one, both are valid."""
    types: Annotated[frozenset[ChangeType], Field(min_length=1)] | None = None
    """None: all types."""
    allow_private: bool = False
    """Whether it may be an address that is not public, and without TLS."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        url = yarl.URL(self.url.get_secret_value())
        if self.allow_private:
            return self
        if url.scheme != "https":
            raise ValueError('url: begins with https:// unless "allow_private" is true')
        if _is_address(url.host or "") and not is_public(url.host or ""):
            raise ValueError('url: the address is not public; "allow_private": true allows it')
        return self

    @property
    def shown_url(self) -> str:
        """The URL without what may be secret: user, password, path and query."""
        url = yarl.URL(self.url.get_secret_value())
        return f"{url.origin()}{'/' if url.path_qs == '/' else '/***'}"

    @property
    def sent(self) -> frozenset[ChangeType]:
        """The types of changes that are sent."""
        return frozenset(ChangeType) if self.types is None else self.types

    def shown(self) -> dict[str, object]:
        """The same with secrets hidden."""
        hidden: dict[str, object] = {"url": self.shown_url, "secret": "***"}
        types = {} if self.types is None else {"types": sorted(self.types)}
        return {**hidden, **types, "allow_private": self.allow_private}


def check_told(webhooks: Mapping[str, Webhook], told: Told) -> None:
    """Check that what webhooks name is told at all. Raises SettingsError."""
    for name, webhook in webhooks.items():
        if missing := sorted((webhook.types or frozenset()) - _types_told(told)):
            raise SettingsError(
                f"DEVICEOPS_WEBHOOKS {name} types: {', '.join(missing)} is not told with DEVICEOPS_CHANGES={told}"
            )
    if webhooks and told is Told.NONE:
        raise SettingsError("DEVICEOPS_WEBHOOKS: nothing is told with DEVICEOPS_CHANGES=none")


def _types_told(told: Told) -> frozenset[ChangeType]:
    if told is Told.NONE:
        return frozenset()
    return frozenset(ChangeType) - ({ChangeType.DEVICE_OPERATIONS_CHANGED} if told is not Told.ALL else set())


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
