"""One delivery. Properties that are rarely needed are decoded on access."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pamqp import commands
from pamqp.header import ContentHeader

from worker.amqp import lenient_decoding
from worker.model.cloudevents import STRUCTURED
from worker.model.messages import MARKS

_BIT = commands.Basic.Properties.flags
_TEXTS_BEFORE_HEADERS = (_BIT["content_type"], _BIT["content_encoding"])
_ENCODED, _CLOUD_EVENT = _BIT["content_encoding"], STRUCTURED.encode()
_EVENT_SIZE = len(_CLOUD_EVENT)
_OCTETS = (_BIT["delivery_mode"], _BIT["priority"])
_TEXTS_BEFORE_MESSAGE_ID = (_BIT["correlation_id"], _BIT["reply_to"], _BIT["expiration"])
_FLAGS, _PROPERTIES = slice(12, 14), 14
"""Offset of the property flags in a content header (AMQP 0-9-1, section 4.2.6.1)."""

Essentials = tuple[str | None, str | None, datetime | None, dict[str, Any] | None, bool]
"""Message id (with surrogates for bytes that are not UTF-8), type, timestamp, headers, whether it is plain."""


@dataclass(slots=True)
class Delivery:
    """A delivery, as the payloads of its frames."""

    method: bytes
    header: bytes
    body: bytes

    @property
    def tag(self) -> int:
        """For its acknowledgement, valid on its own channel."""
        at = 5 + self.method[4]
        return int.from_bytes(self.method[at : at + 8])

    @property
    def is_redelivered(self) -> bool:
        """Whether it was delivered before."""
        return bool(self.method[13 + self.method[4]] & 1)

    @property
    def deliver(self) -> commands.Basic.Deliver:
        """The method frame, with the exchange and the routing key."""
        method = commands.Basic.Deliver()
        method.unmarshal(self.method[4:])
        return method

    @property
    def properties(self) -> commands.Basic.Properties:
        """All of its properties."""
        header = ContentHeader()
        header.unmarshal(self.header)
        return header.properties

    def essentials(self) -> Essentials:
        """The properties that every message needs, decoded in less than half of the time of all."""
        header, at = self.header, _PROPERTIES
        flags = int.from_bytes(header[_FLAGS])
        message_id: Any = None
        type_: Any = None
        timestamp: Any = None
        headers: Any = None
        is_plain = not flags & _ENCODED
        for bit in _TEXTS_BEFORE_HEADERS:
            if flags & bit:
                size = header[at]
                if size >= _EVENT_SIZE and header[at + 1 : at + 1 + _EVENT_SIZE].lower() == _CLOUD_EVENT:
                    is_plain = False
                at += 1 + size
        if flags & _BIT["headers"]:
            size, headers = lenient_decoding.table(header[at:])
            at += size
            is_plain = is_plain and MARKS.isdisjoint(headers)
        for bit in _OCTETS:
            at += bool(flags & bit)
        for bit in _TEXTS_BEFORE_MESSAGE_ID:
            if flags & bit:
                at += 1 + header[at]
        if flags & _BIT["message_id"]:
            size, message_id = lenient_decoding.exact_text(header[at:])
            at += size
        if flags & _BIT["timestamp"]:
            size, timestamp = lenient_decoding.timestamp(header[at : at + 8])
            at += size
        if flags & _BIT["message_type"]:
            type_ = lenient_decoding.text(header[at:])[1]
        return message_id, type_, timestamp, headers, is_plain
