"""Tokens of the HTTP API: what each may do, and how one is recognised by its hash."""

import secrets
from collections.abc import Mapping
from enum import StrEnum
from hashlib import sha256
from hmac import compare_digest
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, StringConstraints

_PREFIX = "deviceops_"
_BYTES = 32
"""Of randomness: too many to guess, so that a plain hash is enough, and a slow one would only cost."""


class Scope(StrEnum):
    """What a token may do."""

    READ_OPERATION = "read:operation"
    READ_DEVICE = "read:device"
    UPDATE_OPERATION = "update:operation"
    ADMIN_DEAD_LETTERS = "admin:dead-letters"


class Token(BaseModel):
    """What is known of a token; never the token itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scopes: frozenset[Scope]
    hash: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of the token, in hexadecimal."""


class Caller(NamedTuple):
    """Who calls, and what they may do."""

    name: str
    scopes: frozenset[Scope]


def create(scopes: frozenset[Scope]) -> tuple[str, Token]:
    """Make a token: the token itself, to be told once, and what to keep of it."""
    text = _PREFIX + secrets.token_urlsafe(_BYTES)
    return text, Token(scopes=scopes, hash=_hash(text))


def find(tokens: Mapping[str, Token], text: str) -> Caller | None:
    """Whose token this is, None if it is nobody's; it takes as long whoever's it is."""
    hashed = _hash(text)
    found = None
    for name, token in tokens.items():
        if compare_digest(token.hash, hashed):
            found = Caller(name, token.scopes)
    return found


def _hash(text: str) -> str:
    return sha256(text.encode(errors="surrogateescape")).hexdigest()
