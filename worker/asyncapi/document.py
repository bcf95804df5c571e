"""The contract for other programs: JSON Schema (2020-12) and AsyncAPI 3, made of the models that read messages.

A schema takes what the parser takes, as far as JSON Schema can say it; `UNSAID` is what it cannot.
"""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from worker.amqp.topology import DELIVERY_LIMIT, Topology
from worker.asyncapi.examples import EXAMPLES
from worker.model.contract import Announcement, Report, Reports
from worker.model.identity import MAX_ID
from worker.model.messages import ANNOUNCEMENT, MAX_BODY, REPORT, REPORTS

Document = dict[str, Any]

MODELS: Mapping[str, type[BaseModel]] = {REPORT: Report, REPORTS: Reports, ANNOUNCEMENT: Announcement}
"""What the body of each type of message is."""

UNSAID = (
    f"a message has at most {MAX_BODY:,} bytes, in UTF-8, and half of a surrogate pair in its text counts as ?",
    "NaN and Infinity are not JSON, numbers in documents are those of a double, which 1e400 is not, and arrays "
    "and objects nest no deeper than 200 levels",
    "of a name that comes twice in one object the last counts",
    "a bulk message with some unreadable reports is taken: each of those is a dead letter of its own",
    "whether a report is applied is a matter of states, see the examples",
)
"""What no schema says."""

_NAMES = {
    REPORT: ("report", "The state of one device operation"),
    REPORTS: ("reports", "Many reports in one message"),
    ANNOUNCEMENT: ("announcement", "An operation, and the devices that it targets"),
}
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
    model = MODELS[message_type]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": message_type,
        "$comment": f"What a schema cannot say: {'; '.join(UNSAID)}.",
        "$ref": f"#/$defs/{model.__name__}",
        "examples": [example.body for example in EXAMPLES if example.type == message_type],
        "$defs": _schemas([model], "#/$defs/{model}"),
    }


def asyncapi(topology: Topology, host: str, protocol: str) -> Document:
    """The AsyncAPI document of a worker that consumes from the broker at `host`, which has the port if need be."""
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
            "broker": {
                "host": host,
                "protocol": protocol,
                "protocolVersion": "0.9.1",
                "description": "RabbitMQ 3.10 or later.",
                "security": [{"$ref": "#/components/securitySchemes/user"}],
            }
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
            "messages": {_NAMES[type_][0]: _message(type_) for type_ in MODELS},
            "schemas": _schemas([*MODELS.values()], "#/components/schemas/{model}"),
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
                "description": "Any: the queue is bound with #.",
                "default": REPORT,
                "examples": [*MODELS],
            }
        },
        "servers": [{"$ref": "#/servers/broker"}],
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
        "servers": [{"$ref": "#/servers/broker"}],
        "messages": _messages(),
        "bindings": _amqp(
            {
                "is": "queue",
                "queue": {"name": topology.reports, "durable": True, "exclusive": False, "autoDelete": False},
            }
        ),
    }


def _messages() -> Document:
    return {name: {"$ref": f"#/components/messages/{name}"} for name, _ in _NAMES.values()}


def _message(type_: str) -> Document:
    name, title = _NAMES[type_]
    return {
        "name": name,
        "title": title,
        "summary": f"AMQP type {type_}" + ("; also of a message without a type." if type_ == REPORT else "."),
        "contentType": "application/json",
        "headers": _HEADERS,
        "payload": {"$ref": f"#/components/schemas/{MODELS[type_].__name__}"},
        "bindings": _amqp({"messageType": type_}),
        "examples": [
            {"name": example.name, "summary": example.summary, "payload": example.body}
            for example in EXAMPLES
            if example.type == type_
        ],
        "x-amqp-properties": _properties(type_),
    }


def _properties(type_: str) -> Document:
    """The properties of an AMQP message, for which AsyncAPI's binding has no place, as a schema."""
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
