"""The contract for producers: JSON Schema (2020-12) and AsyncAPI 3, generated from the models that parse messages.

A schema takes what the parser takes, as far as JSON Schema can say it; `UNSAID` is what it cannot.
"""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from worker.amqp.topology import DELIVERY_LIMIT, Topology
from worker.asyncapi.examples import EXAMPLES, OPERATION
from worker.model.identity import MAX_ID
from worker.model.messages import MAX_BODY, REPORT
from worker.model.parsing import TYPES, MessageType

Document = dict[str, Any]

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

_SHORT_STRING = {"type": "string", "maxLength": MAX_ID}
_HEADERS = {
    "type": "object",
    "description": "Any headers are taken, and kept with a message that becomes a dead letter.",
    "properties": {
        name: {"type": "string", "description": "W3C Trace Context: what the message was sent in the course of."}
        for name in ("traceparent", "tracestate")
    },
}


def json_schema(message_type: str) -> Document:
    """The JSON Schema of the bodies of one type of message."""
    model = TYPES[message_type].model
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": message_type,
        "$comment": f"What a schema cannot say: {'; '.join(UNSAID)}.",
        "$ref": f"#/$defs/{model.__name__}",
        "examples": [example.body for example in EXAMPLES if example.type == message_type],
        "$defs": _schemas([model], "#/$defs/{model}"),
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
            f"in any order and any number of times.\n\nWhat a schema cannot say: {'; '.join(UNSAID)}.",
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
        },
        "components": {
            "messages": {type_.short_name: _message(type_) for type_ in TYPES.values()},
            "schemas": _schemas([type_.model for type_ in TYPES.values()], "#/components/schemas/{model}"),
            "securitySchemes": {
                "user": {"type": "userPassword", "description": "A user that may write to the exchange."}
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
                "exchange": {"name": topology.exchange, "type": "topic", "durable": True, "autoDelete": False},
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


def _schemas(models: list[type[BaseModel]], reference: str) -> Document:
    _, document = models_json_schema([(model, "validation") for model in models], ref_template=reference)
    schemas: Document = document["$defs"]
    return schemas
