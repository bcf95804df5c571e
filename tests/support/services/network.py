"""Private networks: places with a link to each other and one to this machine, which can be cut."""

import ipaddress
import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Self

from tests.support.services.server import ServiceError

_PEERS, _CLIENTS = "peers", "clients"


class Namespace:
    """A network namespace of Linux's, which lives as long as its processes: this one, and those that enter it."""

    def __init__(self) -> None:
        # Its first process ends when the pipe does: with the tests, however they end.
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo made && exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the tests
        )
        assert self._holder.stdout is not None
        if not self._holder.stdout.readline():
            _, why = self._holder.communicate()
            raise ServiceError(f"The tests may not make a network here: {why.decode().strip()}")
        self.ip("link", "set", "lo", "up")

    @property
    def pid(self) -> int:
        """The process by which others name the namespace."""
        return self._holder.pid

    def entered_by(self, *command: str) -> list[str]:
        """How to run a command in it."""
        return ["nsenter", f"--target={self.pid}", "--net", *command]

    def ip(self, *arguments: str) -> None:
        """Run iproute2's `ip` in it."""
        _ip(*arguments, enter=self.entered_by())

    def close(self) -> None:
        """End it, with its links, once no other process is in it."""
        self._holder.communicate()


class Place:
    """A namespace of a network with an address on either of its links."""

    def __init__(self, hub: Namespace, name: str, addresses: dict[str, str]) -> None:
        self.namespace = Namespace()
        self._hub, self._name = hub, name
        self.peer_address, self.address = addresses[_PEERS], addresses[_CLIENTS]
        """Where its peers reach it, and where this machine does."""
        for link, address in addresses.items():
            end = f"{name}-{link}"
            hub.ip("link", "add", end, "type", "veth", "peer", "name", link, "netns", str(self.namespace.pid))
            hub.ip("link", "set", end, "master", link, "up")
            self.namespace.ip("address", "add", f"{address}/24", "dev", link)
            self.namespace.ip("link", "set", link, "up")

    @contextmanager
    def cut_off(self, *, also_from_clients: bool) -> Iterator[None]:
        """For the length of a block, nothing that is sent over a link arrives; neither side is told."""
        links = [_PEERS, *([_CLIENTS] if also_from_clients else [])]
        try:
            for link in links:
                self._hub.ip("link", "set", f"{self._name}-{link}", "down")
            yield
        finally:
            for link in links:
                self._hub.ip("link", "set", f"{self._name}-{link}", "up")


class Network:
    """Places in two networks, one between them and one with this machine; all gone at the end of the block.

    The networks are bridges in a namespace of their own. This machine gets one interface, which is its end of the
    second network, with an address in a part of 10.0.0.0/8 that it has no other route to.
    """

    def __init__(self, *names: str) -> None:
        self._names = names
        self._stack = ExitStack()
        self.interface = f"deviceops-{secrets.token_hex(2)}"  # 15 characters at most
        """This machine's end."""
        self.places: list[Place] = []

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise ServiceError("Only root can make networks, which these tests cut: run the tests as root.")
        with ExitStack() as stack:
            hub = Namespace()
            stack.callback(hub.close)
            for bridge in (_PEERS, _CLIENTS):
                hub.ip("link", "add", bridge, "type", "bridge")
                hub.ip("link", "set", bridge, "up")
            peers, clients = _free_networks()
            _ip("link", "add", self.interface, "type", "veth", "peer", "name", "here", "netns", str(hub.pid))
            stack.callback(_ip, "link", "delete", self.interface)  # it would go with the hub, but later
            hub.ip("link", "set", "here", "master", _CLIENTS, "up")
            _ip("address", "add", f"{clients[1]}/24", "dev", self.interface)
            _ip("link", "set", self.interface, "up")
            for number, name in enumerate(self._names, start=11):
                place = Place(hub, name, {_PEERS: str(peers[number]), _CLIENTS: str(clients[number])})
                stack.callback(place.namespace.close)
                self.places.append(place)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def _free_networks() -> tuple[ipaddress.IPv4Network, ipaddress.IPv4Network]:
    """Two networks of 256 addresses that this machine has no route to but the default one."""
    routes = json.loads(_ip("-json", "-4", "route", "show", "table", "all"))
    taken = [ipaddress.IPv4Network(route["dst"], strict=False) for route in routes if route["dst"] != "default"]
    while True:
        both = ipaddress.IPv4Network((f"10.{secrets.randbelow(256)}.{2 * secrets.randbelow(128)}.0", 23))
        if not any(both.overlaps(network) for network in taken):
            first, second = both.subnets()
            return first, second


def _ip(*arguments: str, enter: list[str] | None = None) -> str:
    done = subprocess.run([*(enter or []), "ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServiceError(f"The tests may not make a network here: {done.stderr.strip()}")
    return done.stdout
