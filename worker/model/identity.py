"""The ids of messages and reports, from whatever a sender gives: different bytes are different ids, always."""

from hashlib import sha1
from uuid import NAMESPACE_DNS, UUID, uuid5

from asyncpg.pgproto.pgproto import UUID as DriverUUID  # noqa: N811  # a class

NAMESPACE = uuid5(NAMESPACE_DNS, "deviceops")
"""The namespace of the UUIDv5 (RFC 9562, section 5.5) that identifies a message without an id by its body."""
MAX_ID = 255
"""Characters of a report's id, as of an AMQP message id; a longer one is replaced by its UUIDv5."""

_NIL = UUID(int=0)
_NONE = frozenset(
    spelling
    for text in (str(_NIL), _NIL.hex)
    for spelling in (text, f"{{{text}}}", f"({text})", f"urn:uuid:{text}", f"URN:UUID:{text}")
) | {"", "\0" * 16}
"""What counts as no id: empty, or an all-zero UUID in any of its spellings, of which the last is its bytes."""


_FIRST = 0xFFFF_FFFF << 96
"""The bits of an id that are the operation's, as of the whole number that its sixteen bytes are."""
_HASHED = ~_FIRST & ~(0xF << 76 | 0b11 << 62)
"""Those of the hash: the others but for version and variant."""
_VERSION_8 = 8 << 76 | 0b10 << 62


def identity(id_: object) -> str | None:
    """The identity that an id from outside gives a message or a report; None if it is no id.

    Text that every database keeps stands for itself. Other text is replaced by the UUIDv5 of its bytes, so that no
    two become one: PostgreSQL has no NUL, and what is not UTF-8 (here with surrogates in its place) is no text.
    """
    if not isinstance(id_, str) or id_ in _NONE:
        return None
    if len(id_) <= MAX_ID and "\0" not in id_ and (id_.isascii() or is_text(id_)):
        return id_
    return body_id(_bytes_of(id_))


def body_id(body: bytes) -> str:
    """The identity of a message that carries none: the UUIDv5 of its body."""
    return str(UUID(bytes=sha1(NAMESPACE.bytes + body, usedforsecurity=False).digest()[:16], version=5))


def is_text(id_: str) -> bool:
    """Whether it can be written as UTF-8."""
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
    """The id of a device operation: a UUIDv8 (RFC 9562, section 5.8) that begins as the operation's id does.

    After the first four bytes come 90 bits of what `pair_id` hashes: a million devices of one operation have two
    of the same id with a probability of 4e-16. Being a function of the pair, it needs no look-up, and two workers
    that register one pair agree on it. Beginning like each other's, the ids of an operation's devices lie together
    in every index but that of a device's: beside millions of others, a batch touches few pages of them.
    """
    operation, device = operation_id.int, device_id.int
    digest = sha1(operation.to_bytes(16) + device.to_bytes(16), usedforsecurity=False).digest()
    number = operation & _FIRST | int.from_bytes(digest[:16]) & _HASHED | _VERSION_8
    # The driver's own kind of UUID: it is made, hashed and sent several times as fast, and equals any other.
    id_: UUID = DriverUUID(number.to_bytes(16))
    return id_


def pair_id(operation_id: UUID, device_id: UUID) -> UUID:
    """The UUIDv5 of the device's 16 bytes in the operation's namespace: what dead letters know their report by."""
    digest = sha1(operation_id.bytes + device_id.bytes, usedforsecurity=False).digest()
    return UUID(bytes=digest[:16], version=5)
