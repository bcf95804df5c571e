"""The ids of messages and reports, from whatever a sender gives: different bytes are different ids, always."""

from hashlib import sha1
from uuid import NAMESPACE_DNS, UUID, uuid5

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
