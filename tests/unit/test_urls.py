"""The parameters of addresses: each that is accepted does what it says, and no other one passes in silence."""

import socket
import time

import pytest
from pydantic import SecretStr

from worker.amqp.connection import connected
from worker.config import urls
from worker.config.settings import Settings
from worker.errors import DeviceopsError

BROKER, DATABASE = "amqp://guest:s3cr3t@localhost/", "postgresql://user:s3cr3t@localhost/name"


@pytest.mark.parametrize(
    "query",
    [
        *("interleave=1", "happy_eyeballs_delay=0.25", "connection_attempts=3"),
        *("heartbeat=abc", "heartbeat=-1", "heartbeat=70000", "heartbeat=65535", "heartbeat=1.5", "heartbeat="),
        *(
            "heartbeat=1&heartbeat=2",
            "timeout=0",
            "timeout=-1",
            "timeout=nan",
            "timeout=1e9",
            "timeout=abc",
            "timeout",
        ),
        *("auth=amqplain", "auth=", "name=", "Heartbeat=5"),
    ],
)
def test_a_brokers_parameter_that_would_do_nothing_is_refused_by_name(query: str) -> None:
    with pytest.raises(ValueError, match=query.partition("=")[0]) as refused:
        urls.amqp_url(SecretStr(f"{BROKER}?{query}"))
    assert "s3cr3t" not in str(refused.value)


@pytest.mark.parametrize("query", ["sslmode=", "sslmode=on", "ssl=require&ssl=disable", "nothing=", "heartbeat=5"])
def test_a_databases_parameter_that_would_do_nothing_is_refused_by_name(query: str) -> None:
    with pytest.raises(ValueError, match=r"sslmode|nothing|heartbeat") as refused:
        urls.database_url(SecretStr(f"{DATABASE}?{query}"))
    assert "s3cr3t" not in str(refused.value)


async def test_a_broker_that_does_not_answer_is_waited_for_as_long_as_its_address_says() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # the kernel takes the connection, and nothing answers
        port = server.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(DeviceopsError, match="does not answer"):
            async with connected(Settings(amqp_url=SecretStr(f"amqp://127.0.0.1:{port}/?timeout=0.5"))):
                pass
        assert 0.4 < time.monotonic() - began < 9
