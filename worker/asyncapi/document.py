"""The contract for producers and listeners: JSON Schema (2020-12) and AsyncAPI 3, generated from the models.

A schema of a message takes what the parser takes, as far as JSON Schema can say it; `UNSAID` is what it cannot.
Schemas of changes are of what is published.
"""

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from string import Formatter
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from statemachine import OperationState
from worker.amqp.topology import DELIVERY_LIMIT, Topology
from worker.asyncapi import change_examples
from worker.asyncapi.examples import EXAMPLES, OPERATION
from worker.model.changes import KINDS, SPECVERSION, ChangeKind, ChangeType, Told
from worker.model.identity import MAX_ID
from worker.model.messages import MAX_BODY, REPORT
from worker.model.outcomes import Reason
from worker.model.parsing import TYPES, MessageType

Document = dict[str, Any]
_Mode = Literal["validation", "serialization"]

UNSAID = (
    f"a message has at most {MAX_BODY:,} bytes, in UTF-8, and half of a surrogate pair in its text counts as ?",
    "NaN and Infinity are not JSON, numbers in documents are those of a double, which 1e400 is not, and arrays "
    "and objects nest no deeper than 200 levels",
    "of a name that comes twice in one object the last counts",
    "a body may begin with a byte order mark and may be compressed: gzip or deflate by content_encoding, or by "
    "the header compression, as kombu sets it",
    "a message may be a CloudEvent 1.0, structured (application/cloudevents+json) or binary (headers "
    "cloudEvents:, cloudEvents_ or ce-): its type is the message's type, its source and id are the message's id",
    "a bulk message with some unreadable reports is taken: each of those is a dead letter of its own",
    "whether a report is applied is a matter of states, see the examples",
)
"""Rules that JSON Schema cannot express."""

_ID = {"type": "string", "format": "uuid"}
_SHORT_STRING = {"type": "string", "maxLength": MAX_ID}
_HEADERS = {
    "type": "object",
    "description": "Any headers are taken, and kept with a message that becomes a dead letter.",
    "properties": {
        name: {"type": "string", "description": "W3C Trace Context: what the message was sent in the course of."}
        for name in ("traceparent", "tracestate")
    },
}

_UNSAID_OF_CHANGES = (
    "a change comes at least once, with the same message_id each time",
    "of one operation and type, changes come in the order of their sequence, but for those that come again",
    "fields may be added, so that a listener has to ignore those that it does not know",
)
_PARTS: Mapping[str, Document] = {
    "state": {"description": "The operation's state.", "enum": [state.value for state in OperationState]},
    "reason": {"description": "Why the reports were rejected.", "enum": [reason.value for reason in Reason]},
    "operation_type": {
        "description": "The operation's type, with _ for each dot and space, and _ while it is not known; the end "
        "is cut where the routing key would have more than 255 bytes.",
        "examples": ["CONVERGE"],
    },
}
"""The parts of the routing keys of changes."""


def json_schema(type_: str) -> Document:
    """The JSON Schema of the bodies of one type of message, or of change."""
    if type_ in KINDS:
        kind = KINDS[ChangeType(type_)]
        examples = [example.body for example in change_examples.EXAMPLES if example.type == type_]
        return _json_schema(type_, kind.body, "serialization", _UNSAID_OF_CHANGES, examples)
    examples = [example.body for example in EXAMPLES if example.type == type_]
    return _json_schema(type_, TYPES[type_].model, "validation", UNSAID, examples)


def _json_schema(
    title: str, model: type[BaseModel], mode: _Mode, unsaid: Iterable[str], examples: Sequence[object]
) -> Document:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "$comment": f"What a schema cannot say: {'; '.join(unsaid)}.",
        "$ref": f"#/$defs/{model.__name__}",
        "examples": examples,
        "$defs": _schemas([(model, mode)], "#/$defs/{model}"),
    }


def asyncapi(topology: Topology, hosts: Sequence[str], protocol: str) -> Document:
    """The AsyncAPI document of a worker that consumes from a broker's `hosts`, each with a port if needed.

    A channel without servers of its own is on all of them.
    """
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "deviceops",
            "version": version("deviceops"),
            "description": "Reports of what happens on devices while an operation rolls over them. They may come "
            "in any order and any number of times. Changes are sent to those who listen.\n\nWhat a schema of a "
            f"message cannot say: {'; '.join(UNSAID)}.\n\nOf a change: {'; '.join(_UNSAID_OF_CHANGES)}.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            f"broker-{number}" if len(hosts) > 1 else "broker": {
                "host": host,
                "protocol": protocol,
                "protocolVersion": "0.9.1",
                "description": "RabbitMQ 3.10 or later.",
                "security": [{"$ref": "#/components/securitySchemes/user"}],
            }
            for number, host in enumerate(hosts, 1)
        },
        "channels": {
            "exchange": _exchange(topology),
            "queue": _queue(topology),
            **{_name(kind): _changes(topology, kind) for kind in KINDS.values()},
        },
        "operations": {
            "receiveReports": {
                "action": "receive",
                "channel": {"$ref": "#/channels/exchange"},
                "summary": "Publish here.",
                "description": "With publisher confirms, persistent and mandatory: a confirmed message is kept, "
                "one that the broker refuses or returns has to be sent again.",
                "bindings": _amqp({"deliveryMode": 2, "mandatory": True, "timestamp": True}),
            },
            "consume": {
                "action": "receive",
                "channel": {"$ref": "#/channels/queue"},
                "summary": "What workers do, any number of them.",
                "bindings": _amqp({"ack": True}),
            },
            **{f"send{kind.body.__name__}": _sending(kind) for kind in KINDS.values()},
        },
        "components": {
            "messages": {
                **{type_.short_name: _message(type_) for type_ in TYPES.values()},
                **{_name(kind): _change(topology, kind) for kind in KINDS.values()},
            },
            "schemas": _schemas(
                [
                    *((type_.model, "validation") for type_ in TYPES.values()),
                    *((kind.body, "serialization") for kind in KINDS.values()),
                ],
                "#/components/schemas/{model}",
            ),
            "securitySchemes": {
                "user": {
                    "type": "userPassword",
                    "description": "A user that may write to the exchange; of a listener, one that may read the "
                    "exchange of changes.",
                }
            },
        },
    }


def _exchange(topology: Topology) -> Document:
    return {
        "address": "{routing_key}",
        "parameters": {
            "routing_key": {
                "description": "The id of the operation, by which workers share the work; others are as correct.",
                "examples": [OPERATION],
            }
        },
        "messages": _messages(),
        "bindings": _amqp(
            {
                "is": "routingKey",
                "exchange": _topic(topology.exchange),
            }
        ),
    }


def _queue(topology: Topology) -> Document:
    return {
        "address": topology.reports,
        "description": f"A quorum queue. What {DELIVERY_LIMIT} deliveries did not settle, and what expires, goes "
        f"to the exchange {topology.dead_letters}; the worker keeps it as a dead letter.",
        "messages": _messages(),
        "bindings": _amqp(
            {
                "is": "queue",
                "queue": {"name": topology.reports, "durable": True, "exclusive": False, "autoDelete": False},
            }
        ),
    }


def _changes(topology: Topology, kind: ChangeKind) -> Document:
    """The exchange of changes, with the routing keys of one type."""
    parts = [name for _, name, _, _ in Formatter().parse(kind.routing_key) if name]
    return {
        "address": kind.routing_key,
        "description": "A listener binds a queue of its own with the routing keys that it wants, with * for one "
        "part and # for all that follow.",
        "parameters": {name: _PARTS[name] for name in parts},
        "messages": {_name(kind): {"$ref": f"#/components/messages/{_name(kind)}"}},
        "bindings": _amqp({"is": "routingKey", "exchange": _topic(topology.changes)}),
    }


def _sending(kind: ChangeKind) -> Document:
    channel = f"#/channels/{_name(kind)}"
    condition = " With DEVICEOPS_CHANGES=all only." if kind.told is Told.ALL else ""
    return {
        "action": "send",
        "channel": {"$ref": channel},
        "summary": f"{kind.summary[0].upper()}{kind.summary[1:]}.",
        "description": f"After the commit, with publisher confirms, at least once.{condition}",
        "messages": [{"$ref": f"{channel}/messages/{_name(kind)}"}],
        "bindings": _amqp({"deliveryMode": 2, "mandatory": False, "timestamp": True}),
    }


def _change(topology: Topology, kind: ChangeKind) -> Document:
    is_ordered = "sequence" in kind.body.model_fields
    correlation = {
        "description": "Changes with the same operation_id and sequence are of one transaction.",
        "location": "$message.payload#/operation_id",
    }
    return {
        "name": _name(kind),
        "title": kind.name.value,
        "summary": f"AMQP type {kind.name.value}.",
        "contentType": "application/json",
        "headers": _cloud_event(topology, kind),
        "payload": {"$ref": f"#/components/schemas/{kind.body.__name__}"},
        **({"correlationId": correlation} if is_ordered else {}),
        "bindings": _amqp({"messageType": kind.name.value}),
        "examples": [
            {"name": example.name, "summary": example.summary, "payload": example.body}
            for example in change_examples.EXAMPLES
            if example.type == kind.name
        ],
        "x-amqp-properties": {
            "type": "object",
            "required": ["type", "message_id", "timestamp", "delivery_mode", "content_type"],
            "properties": {
                "type": {"const": kind.name.value},
                "delivery_mode": {"const": 2, "description": "Persistent."},
                "message_id": {**_ID, "description": "The same in each copy of the message."},
                "timestamp": {"type": "integer", "description": "When it was written, in seconds since 1970."},
                "content_type": {"const": "application/json"},
            },
        },
    }


def _cloud_event(topology: Topology, kind: ChangeKind) -> Document:
    """A schema of the headers: CloudEvents 1.0 in binary mode."""
    subject = "The reason." if kind.name is ChangeType.DEAD_LETTERS_ADDED else "The operation's id."
    properties: Mapping[str, Document] = {
        "specversion": {"const": SPECVERSION},
        "id": {**_ID, "description": "The message_id."},
        "source": {"const": f"/deviceops/{topology.prefix}"},
        "type": {"const": kind.name.value},
        "subject": {"type": "string", "description": subject},
        "time": {"type": "string", "format": "date-time", "description": "When the change was written."},
    }
    named = {f"cloudEvents:{name}": schema for name, schema in properties.items()}
    return {"type": "object", "required": [*named], "properties": named}


def _name(kind: ChangeKind) -> str:
    """A name of a type that AsyncAPI takes."""
    return f"{kind.body.__name__[0].lower()}{kind.body.__name__[1:]}"


def _topic(name: str) -> Document:
    return {"name": name, "type": "topic", "durable": True, "autoDelete": False}


def _messages() -> Document:
    return {
        name: {"$ref": f"#/components/messages/{name}"} for name in (type_.short_name for type_ in TYPES.values())
    }


def _message(type_: MessageType) -> Document:
    return {
        "name": type_.short_name,
        "title": type_.title,
        "summary": f"AMQP type {type_.name}"
        + ("; also of a message without a type." if type_.name == REPORT else "."),
        "contentType": "application/json",
        "headers": _HEADERS,
        "payload": {"$ref": f"#/components/schemas/{type_.model.__name__}"},
        "bindings": _amqp({"messageType": type_.name}),
        "examples": [
            {"name": example.name, "summary": example.summary, "payload": example.body}
            for example in EXAMPLES
            if example.type == type_.name
        ],
        "x-amqp-properties": _properties(type_.name),
    }


def _properties(type_: str) -> Document:
    """A schema of the AMQP properties, which AsyncAPI's binding does not cover."""
    return {
        "type": "object",
        "required": [] if type_ == REPORT else ["type"],
        "properties": {
            "type": {"const": type_},
            "delivery_mode": {"const": 2, "description": "Persistent."},
            "message_id": {
                **_SHORT_STRING,
                "description": "The message's identity where the body has none: the same when it is sent again.",
            },
            "timestamp": {
                "type": "integer",
                "description": "Seconds since 1970: when a state was reached, unless the body says it.",
            },
            "content_type": {"const": "application/json", "description": "Not looked at."},
            "user_id": {
                **_SHORT_STRING,
                "description": "The broker's user, named as the service_id. Needed with DEVICEOPS_VERIFY_USER_ID.",
            },
        },
    }


def _amqp(binding: Document) -> Document:
    return {"amqp": {**binding, "bindingVersion": "0.3.0"}}


def _schemas(models: Sequence[tuple[type[BaseModel], _Mode]], reference: str) -> Document:
    _, document = models_json_schema(models, ref_template=reference)
    schemas: Document = document["$defs"]
    return schemas
