"""Attempts of webhooks: which addresses are connected to, which certificates are accepted, what is no answer."""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.support.certificates import Authority
from tests.support.receiving import SECRET, raw, receiving
from worker.config.webhooks import Webhook
from worker.webhooks import client, message
from worker.webhooks.answer import Answer
from worker.webhooks.client import Client

TEST = message.of_test("ops")


def webhook(url: str, *, allow_private: bool = False) -> Webhook:
    """A webhook, also one that settings would refuse."""
    secret = (SecretStr(SECRET),)
    return Webhook.model_construct(url=SecretStr(url), secret=secret, types=None, allow_private=allow_private)


@pytest.fixture
def resolving(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    """What the name server answers, one list of addresses for each question."""
    answers: list[list[str]] = []

    async def resolve(_host: str, port: int, _family: int) -> list[tuple[Any, ...]]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
            for address in answers.pop(0)
        ]

    monkeypatch.setattr(client, "resolve", resolve)
    # Of this machine's addresses one plays the part of a public address.
    monkeypatch.setattr(client, "is_public", lambda host: host == "127.0.0.2")
    yield answers
    assert answers == [], "each attempt asks once"


@contextmanager
def listening(address: str, port: int) -> Iterator[list[object]]:
    """A service that closes each connection; gives those that have come."""
    came: list[object] = []

    def serve() -> None:
        while True:
            try:
                connection, peer = server.accept()
            except OSError:
                return
            came.append(peer)
            connection.close()

    with socket.create_server((address, port)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield came
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)


async def test_a_name_that_leads_to_a_private_address_is_not_connected_to(resolving: list[list[str]]) -> None:
    with receiving() as receiver:
        resolving.append(["127.0.0.1"])
        answer = await Client().send(webhook(f"http://hooks.example:{receiver.port}/"), TEST)
        resolving.append(["127.0.0.1"])
        allowed = webhook(f"http://hooks.example:{receiver.port}/", allow_private=True)
        assert (await Client().send(allowed, TEST)).status == 204
        assert len(receiver.received) == 1
    assert answer == Answer(None, '127.0.0.1 is not a public address; "allow_private": true allows it')


@pytest.mark.parametrize("addresses", [["127.0.0.1", "127.0.0.2"], ["127.0.0.2", "127.0.0.1"]])
async def test_of_a_name_that_leads_to_both_only_the_public_address_is_connected_to(
    resolving: list[list[str]], addresses: list[str]
) -> None:
    with receiving() as receiver, listening("127.0.0.2", receiver.port) as public:
        resolving.append(addresses)
        answer = await Client().send(webhook(f"http://hooks.example:{receiver.port}/t0ken"), TEST)
        assert len(public) == 1
        assert "t0ken" not in answer.reason
        assert receiver.received == []
    assert answer.status is None


async def test_a_name_that_leads_elsewhere_the_next_time_is_checked_again(resolving: list[list[str]]) -> None:
    with receiving() as receiver, listening("127.0.0.2", receiver.port) as public:
        resolving += [["127.0.0.2"], ["127.0.0.1"]]
        sender = Client()
        for _ in range(2):
            answer = await sender.send(webhook(f"http://hooks.example:{receiver.port}/"), TEST)
        assert len(public) == 1
        assert receiver.received == []
    assert "127.0.0.1 is not a public address" in answer.reason


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "localhost"])  # noqa: S104
async def test_this_machine_is_not_connected_to_by_any_of_its_addresses(host: str) -> None:
    with receiving() as receiver:
        answer = await Client().send(webhook(f"http://{host}:{receiver.port}/"), TEST)
        assert receiver.received == []
    assert "is not a public address" in answer.reason


async def test_numbers_that_stand_for_an_address_are_refused() -> None:
    with receiving() as receiver:
        for host in ("2130706433", "127.1", "0x7f000001"):
            answer = await Client().send(webhook(f"http://{host}:{receiver.port}/"), TEST)
            assert not answer.is_success
        assert receiver.received == []


async def test_a_proxy_in_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as receiver:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")
        answer = await Client().send(webhook(receiver.url(), allow_private=True), TEST)
    assert answer.status == 204


async def test_only_certificates_of_known_authorities_for_the_host_are_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path / "authority")
    certificate = authority.issue("localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)
    with receiving(context) as receiver:
        url = f"https://localhost:{receiver.port}/"
        unknown = await Client().send(webhook(url, allow_private=True), TEST)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        known = await Client().send(webhook(url, allow_private=True), TEST)
        other_host = await Client().send(webhook(url.replace("localhost", "127.0.0.1"), allow_private=True), TEST)
    assert unknown.reason.startswith("the certificate is not accepted: ")
    assert known.status == 204
    assert other_host.reason.startswith("the certificate is not accepted: ")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "the connection was closed without an answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", "the answer is not HTTP"),
    ],
    ids=["closed", "another protocol", "a long header"],
)
async def test_what_is_no_answer_is_a_failure(answer: bytes, why: str) -> None:
    with receiving(x=raw(answer)) as receiver:
        found = await Client().send(webhook(receiver.url("/x?secret=k3y"), allow_private=True), TEST)
    assert found.reason == why


async def test_an_answer_that_goes_on_for_ever_is_given_up_at_once() -> None:
    """The library reads any number of 100 Continue, and nothing else runs meanwhile."""
    with receiving(x=raw(b"HTTP/1.1 100 Continue\r\n\r\n" * 400_000)) as receiver:
        began = time.monotonic()
        found = await Client().send(webhook(receiver.url("/x"), allow_private=True), TEST)
    assert found.reason == client.TOO_LONG
    assert time.monotonic() - began < 2
