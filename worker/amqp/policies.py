"""Policies of the broker that can remove messages from the queues, read from the management plugin."""

import json
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPException
from ssl import SSLContext
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPSHandler,
    OpenerDirector,
    Request,
)

from yarl import URL

from worker.amqp.topology import DELIVERY_LIMIT, Topology
from worker.config.settings import Settings
from worker.errors import DeviceopsError

TIMEOUT = 3
"""Timeout of a request to the management plugin, in seconds."""
_UNREADABLE = (OSError, ValueError, LookupError, TypeError, HTTPException)
"""No answer, or one of something else than the management plugin."""
MIN_MEMBERS = 3
"""Members that a quorum queue needs to go on when one is lost."""
_PORTS = {"amqp": ("http", 15672), "amqps": ("https", 15671)}
_MAX_ANSWER = 1 << 20


class PoliciesUnavailable(DeviceopsError):
    """The policies cannot be read; the message has the reason and a command to read them."""


def find_risks(settings: Settings) -> list[str]:
    """The dangers to the messages in the queues, a line each. Blocks for seconds. Raises PoliciesUnavailable."""
    fresh = settings.with_broker_login()
    tls = fresh.amqp_tls()
    topology = Topology(settings.topology_prefix, settings.partitions)
    vhost = quote(fresh.brokers[0].path.removeprefix("/") or "/", safe="")
    found = []
    for queue in topology.queues:
        known, holders = _read(_managements(fresh), vhost, queue, tls)
        definition = known.get("effective_policy_definition") or {}
        for key, why in _threats(
            definition, known.get("arguments") or {}, is_reports=queue != topology.dead_letters
        ):
            holder = holders.get(key, "a policy")
            found.append(f"{holder} sets {key} of queue {queue} to {definition[key]}: {why}")
    return found


def find_lonely_queues(settings: Settings) -> list[str]:
    """The queues that a cluster would lose with one of its nodes, a line each; none where it cannot be read."""
    fresh = settings.with_broker_login()
    tls = fresh.amqp_tls()
    topology = Topology(settings.topology_prefix, settings.partitions)
    vhost = quote(fresh.brokers[0].path.removeprefix("/") or "/", safe="")
    for management in _managements(fresh):
        try:
            nodes = len(_ask(management, "nodes", tls))
            found = [_queue(management, vhost, queue, tls) for queue in topology.queues]
        except _UNREADABLE:
            continue
        return [
            f"queue {queue['name']} is on {len(members)} of {nodes} nodes of the cluster: when "
            f"{'that node is' if len(members) == 1 else 'one of these is'} lost, it stops; "
            "`rabbitmq-queues grow NODE all` adds a node"
            for queue in found
            if nodes > 1 and 0 < len(members := queue.get("members") or ()) < MIN_MEMBERS
        ]
    return []


def _managements(settings: Settings) -> list[URL]:
    """The management plugin's URLs: from the settings, else its default port on the hosts of the broker."""
    user, password = settings.brokers[0].user or "guest", settings.brokers[0].password or "guest"
    if settings.management_url is not None:
        url = URL(settings.management_url.get_secret_value())
        return [url if url.user else url.with_user(user).with_password(password)]
    return [
        URL.build(scheme=scheme, host=node.host or "localhost", port=port, user=user, password=password)
        for node in settings.brokers
        for scheme, port in [_PORTS[node.scheme]]
    ]


def _read(
    managements: Sequence[URL], vhost: str, queue: str, tls: SSLContext | None
) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    """A queue's description and policies, from the first node that answers. Raises PoliciesUnavailable."""
    for management in managements:
        is_last = management == managements[-1]
        try:
            known = _queue(management, vhost, queue, tls)
            return known, _holders(management, vhost, known, tls)
        except HTTPError as error:
            raise _unread(management, vhost, f"answers {error.code} {error.reason}") from error
        except _UNREADABLE as error:
            if not is_last:
                continue
            why = error.reason if isinstance(error, URLError) else error
            words = why.strerror if isinstance(why, OSError) and why.strerror else str(why)
            raise _unread(management, vhost, words) from error
    raise AssertionError("a broker's URL names a node")


def _threats(
    policy: Mapping[str, Any], arguments: Mapping[str, Any], *, is_reports: bool
) -> Iterator[tuple[str, str]]:
    """The keys of a policy that endanger a queue, each with the reason."""
    taken = "become dead letters" if is_reports else "stay in the broker until they are recovered"
    if "expires" in policy:
        yield "expires", "without a consumer for that many milliseconds, the queue is deleted with its messages"
    if "message-ttl" in policy:
        yield "message-ttl", f"messages older than that many milliseconds {taken}"
    overflow = policy.get("overflow") or arguments.get("x-overflow", "drop-head")
    if overflow != "reject-publish":
        for key in ("max-length", "max-length-bytes"):
            if key in policy:
                yield key, f"with the overflow {overflow}, confirmed messages beyond it are dropped"
        if "overflow" in policy:
            yield "overflow", "it overrides reject-publish, so that a limit drops confirmed messages"
    limit = policy.get("delivery-limit")
    if isinstance(limit, int) and 0 <= limit < DELIVERY_LIMIT:
        yield "delivery-limit", f"messages that were returned more often, as in an outage, {taken}"


def _queue(management: URL, vhost: str, queue: str, tls: SSLContext | None) -> Mapping[str, Any]:
    """The broker's description of a queue; for an undeclared one, the policies that would apply."""
    try:
        known: Mapping[str, Any] = _ask(management, f"queues/{vhost}/{quote(queue, safe='')}", tls)
    except HTTPError as error:
        if error.code != 404:
            raise
        expected: dict[str, Any] = {"arguments": {"x-overflow": "reject-publish"}}
        effective: dict[str, Any] = {}
        for kind, field in (("policies", "policy"), ("operator-policies", "operator_policy")):
            found = [each for each in _ask(management, f"{kind}/{vhost}", tls) if _holds(each, queue)]
            if found:
                policy = max(found, key=lambda each: each["priority"])
                expected[field] = policy["name"]
                for key, value in policy["definition"].items():
                    # The smaller of two numbers applies.
                    effective[key] = min(effective.get(key, value), value) if isinstance(value, int) else value
        return expected | {"effective_policy_definition": effective}
    return known


def _holds(policy: Mapping[str, Any], queue: str) -> bool:
    """Whether a policy applies to a quorum queue of this name."""
    try:
        matches = re.search(policy["pattern"], queue) is not None
    except re.error:  # Erlang's regular expressions have constructs that Python's lack
        matches = True
    return matches and policy.get("apply-to", "all") in ("all", "queues", "quorum_queues")


def _holders(management: URL, vhost: str, queue: Mapping[str, Any], tls: SSLContext | None) -> dict[str, str]:
    """The policy that each key comes from; an operator policy's value takes precedence."""
    holders: dict[str, str] = {}
    for kind, field, words in (
        ("policies", "policy", "policy"),
        ("operator-policies", "operator_policy", "operator policy"),
    ):
        if name := queue.get(field):
            definition = _ask(management, f"{kind}/{vhost}/{quote(name, safe='')}", tls)["definition"]
            effective = queue.get("effective_policy_definition") or {}
            keys = (key for key, value in definition.items() if effective.get(key) == value)
            holders |= dict.fromkeys(keys, f"{words} {name}")
    return holders


def _ask(management: URL, path: str, tls: SSLContext | None) -> Any:
    # Slashes are quoted: the default virtual host is named /.
    request = Request(f"{str(management.with_user(None)).rstrip('/')}/api/{path}")  # noqa: S310  # http or https
    given = f"{management.user}:{management.password or ''}"
    request.add_header("Authorization", "Basic " + b64encode(given.encode()).decode())
    opener = OpenerDirector()  # without proxies and redirections, which would get the password
    handlers = (HTTPHandler(), HTTPSHandler(context=tls), HTTPDefaultErrorHandler(), HTTPErrorProcessor())
    for handler in handlers:
        opener.add_handler(handler)
    with opener.open(request, timeout=TIMEOUT) as answer:
        return json.loads(answer.read(_MAX_ANSWER))


def _unread(management: URL, vhost: str, why: str) -> PoliciesUnavailable:
    shown = management.with_password("***") if management.password else management
    name = vhost.replace("%2F", "/")
    return PoliciesUnavailable(
        f"policies could not be read from {shown}: {why}; look with: rabbitmqctl list_policies --vhost {name}, "
        f"and rabbitmqctl list_operator_policies --vhost {name}"
    )
