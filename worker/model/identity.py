"""Ids of messages, reports and device operations. Different bytes from a sender always give different ids."""

from hashlib import sha1
from uuid import NAMESPACE_DNS, UUID, uuid5

NAMESPACE = uuid5(NAMESPACE_DNS, "deviceops")
"""The namespace of the UUIDv5 (RFC 9562, section 5.5) that identifies a message without an id by its body."""
MAX_ID = 255
"""Maximum characters of a report's id, as of an AMQP message id; a longer one is replaced by its UUIDv5."""

_NIL = UUID(int=0)
_NONE = frozenset(
    spelling
    for text in (str(_NIL), _NIL.hex)
    for spelling in (text, f"{{{text}}}", f"({text})", f"urn:uuid:{text}", f"URN:UUID:{text}")
) | {"", "\0" * 16}
"""Values that count as no id: empty, and an all-zero UUID in each spelling, the last of which is its bytes."""


_FIRST = 0xFFFF_FFFF << 96
"""Bits of a device operation's id that are the operation's."""
_HASHED = ~_FIRST & ~(0xF << 76 | 0b11 << 62)
"""Bits of a device operation's id that are the hash's: the rest without version and variant."""
_VERSION_8 = 8 << 76 | 0b10 << 62


def identity(id_: object) -> str | None:
    """The identity of a message or a report, from an id of its sender; None if that is no id.

    Text that every database keeps stands for itself. Other text is replaced by the UUIDv5 of its bytes, so that no
    two become one: PostgreSQL has no NUL, and what is not UTF-8 (here with surrogates in its place) is no text.
    """
    if not isinstance(id_, str) or id_ in _NONE:
        return None
    if len(id_) <= MAX_ID and "\0" not in id_ and (id_.isascii() or is_text(id_)):
        return id_
    return body_id(_bytes_of(id_))


def body_id(body: bytes) -> str:
    """The identity of a message without an id: the UUIDv5 of its body."""
    return str(UUID(bytes=sha1(NAMESPACE.bytes + body, usedforsecurity=False).digest()[:16], version=5))


def is_text(id_: str) -> bool:
    """Whether an id can be encoded in UTF-8."""
    try:
        id_.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bytes_of(id_: str) -> bytes:
    try:
        return id_.encode(errors="surrogateescape")  # the bytes as they came, where they came as bytes
    except UnicodeEncodeError:
        return id_.encode(errors="surrogatepass")


def device_operation_id(operation_id: UUID, device_id: UUID) -> UUID:
    """The id of a device operation: a UUIDv8 (RFC 9562, section 5.8) that begins with the operation's first bytes.

    After the first four bytes come 90 bits of what `pair_id` hashes: a million devices of one operation have two
    of the same id with a probability of 4e-16. Being a function of the pair, it needs no look-up, and two workers
    that register one pair agree on it. Beginning like each other's, the ids of an operation's devices lie together
    in every index but that of a device's: beside millions of others, a batch touches few pages of them.
    """
    operation, device = operation_id.int, device_id.int
    digest = sha1(operation.to_bytes(16) + device.to_bytes(16), usedforsecurity=False).digest()
    number = operation & _FIRST | int.from_bytes(digest[:16]) & _HASHED | _VERSION_8
    return _uuid(number.to_bytes(16))


def device_operation_ids(operation_id: UUID) -> tuple[UUID, UUID]:
    """The first and the last id that a device operation of an operation can have."""
    first = operation_id.int & _FIRST
    return UUID(int=first), UUID(int=first | (1 << 96) - 1)


def pair_id(operation_id: UUID, device_id: UUID) -> UUID:
    """The UUIDv5 of the device's 16 bytes in the operation's namespace, part of a dead letter's fingerprint."""
    digest = sha1(operation_id.bytes + device_id.bytes, usedforsecurity=False).digest()
    return UUID(bytes=digest[:16], version=5)


def _uuid(data: bytes) -> UUID:
    """The UUID of sixteen bytes, of the driver's type: built, hashed and sent several times as fast as Python's.

    Imported at the first call, after which this name is the type itself: many commands never need it.
    """
    global _uuid
    from asyncpg.pgproto.pgproto import UUID as _uuid  # noqa: N811

    id_: UUID = _uuid(data)
    return id_
