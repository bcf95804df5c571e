"""The HTTP API as its users have it: `deviceops serve`, a process of its own, and clients with tokens."""

import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from subprocess import Popen
from threading import Thread
from typing import Any, NamedTuple

import httpx
from pydantic_core import to_json

from tests.support.command import Deviceops
from tests.support.seed import DEVICE_ID, OPERATION, SEED
from worker.config import api_tokens
from worker.config.api_tokens import Scope

DEVICES = [DEVICE_ID[:-1] + digit for digit in "0123456789"]
OPERATIONS = "/v0/operations/"
OF_OPERATION = f"{OPERATIONS}{OPERATION['id']}/"
DEVICE_OPERATIONS = f"{OF_OPERATION}devices/"
PATH = f"{DEVICE_OPERATIONS}{DEVICE_ID}/"
REPORT = SEED["update_device_operation"]
NOWHERE = "00000000-0000-4000-8000-000000000000"

SCOPES = ("read:operation", "read:device", "update:operation", "admin:dead-letters")
TIMEOUT = 60
"""Seconds that a call may take."""


class Server:
    """A server that runs: its address, its log, and a token of a caller named `tests` that may do everything."""

    def __init__(self, process: Popen[str], token: str) -> None:
        self.process = process
        self.token = token
        self.log: list[dict[str, Any]] = []
        assert process.stderr is not None
        for line in process.stderr:
            self.log.append(json.loads(line))
            if self.log[-1]["event"] == "answering probes":
                break
        self.url, self.probes = (
            next(str(line["url"]) for line in self.log if line["event"] == event)
            for event in ("listening", "answering probes")
        )
        self._reading = Thread(target=self._read_on, daemon=True)
        self._reading.start()

    def _read_on(self) -> None:
        assert self.process.stderr is not None
        self.log.extend(map(json.loads, self.process.stderr))

    def probe(self, path: str) -> httpx.Response:
        """The answer to a probe."""
        return httpx.get(f"{self.probes}/{path}", timeout=TIMEOUT, trust_env=False)

    def stop(self) -> int:
        """Tell it to stop, and give its exit code; the log is whole then."""
        self.process.terminate()
        code = self.process.wait(TIMEOUT)
        self._reading.join(TIMEOUT)
        return code

    def client(self, token: str | None = None) -> httpx.Client:
        """A client with a token, the one that may do everything if none is given."""
        headers = {"Authorization": f"Bearer {token or self.token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=TIMEOUT, trust_env=False)

    def async_client(self) -> httpx.AsyncClient:
        """The same, for use beside others."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=TIMEOUT, trust_env=False)


def token(deviceops: Deviceops, name: str, scopes: Sequence[str] = SCOPES) -> tuple[str, str]:
    """Make a token: itself, and the setting that has it too."""
    options = [option for scope in scopes for option in ("--scope", scope)]
    made = deviceops.document("token", "create", name, *options)
    return made["token"], made["setting"]


@contextmanager
def serving(deviceops: Deviceops) -> Iterator[Server]:
    """A server with the settings of a command, until the end of the block."""
    text, made = api_tokens.create(frozenset(Scope))
    known = json.loads(deviceops.settings.get("api_tokens", "{}"))
    setting = to_json({**known, "tests": made}).decode()
    with deviceops.with_settings(api_tokens=setting, http_port="0", http_probe_port="0").start("serve") as process:
        server = Server(process, text)
        try:
            yield server
        finally:
            server.stop()


class Event(NamedTuple):
    """A server-sent event."""

    id: int
    type: str
    data: Any

    @property
    def successes(self) -> int:
        """The number of devices that have succeeded, of an operation's state or of its change."""
        counters = self.data.get("counters") or self.data["operation_stats"]["device_operation_statuses_count"]
        return int(counters["success_device_count"])


async def events(
    client: httpx.AsyncClient, path: str, after: int | None = None, **parameters: str | int
) -> AsyncGenerator[Event, None]:
    """The server-sent events at a path, after the one with an id."""
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    async with client.stream("GET", path, headers=headers, params=parameters) as response:
        assert response.status_code == httpx.codes.OK, await response.aread()
        fields: dict[str, str] = {}
        async for line in response.aiter_lines():
            name, _, value = line.partition(": ")
            fields[name] = value
            if not line:
                if "data" in fields:
                    yield Event(int(fields["id"]), fields["event"], json.loads(fields["data"]))
                fields = {}


def refused(response: httpx.Response, status: int) -> Any:
    """The error's content; every error has the same three keys."""
    assert response.status_code == status, response.text
    document = response.json()
    assert list(document) == ["code", "message", "content"]
    assert document["code"] == status
    assert document["message"]
    return document["content"]


def announce(api: httpx.Client, devices: list[str], **more: object) -> httpx.Response:
    response = api.post(OPERATIONS, json={**OPERATION, "device_ids": devices, **more})
    assert response.is_success, response.text
    return response


def put(api: httpx.Client, state: object, path: str = PATH, /, **more: object) -> httpx.Response:
    return api.put(path, json={**REPORT, "state": state, **more})
