"""The parameters of addresses: each that is accepted does what it says, and no other one passes in silence."""

import socket
import time

import pytest
from pydantic import SecretStr

from tests.support.command import Deviceops
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


def test_a_refused_parameter_is_one_line_that_names_the_setting(deviceops_on_sqlite: Deviceops) -> None:
    done = deviceops_on_sqlite.with_settings(amqp_url=f"{BROKER}?heartbeat=70000")("run", "--until-idle", "0.1")
    expected = (
        "deviceops: DEVICEOPS_AMQP_URL: the parameter heartbeat is once: a whole number of seconds up to 65,534, "
        "0 for no heartbeats\n"
    )
    assert (done.returncode, done.stderr) == (2, expected)


async def test_every_parameter_of_the_broker_does_what_it_says(amqp_url: str) -> None:
    query = "?heartbeat=7&timeout=2.5&name=a%20name%20of%20ours&auth=plain"
    async with connected(Settings(amqp_url=SecretStr(amqp_url + query))) as connection:
        assert connection.transport is not None
        link = connection.transport.connection
        assert link.connection_tune.heartbeat == 7
        assert connection.kwargs["client_properties"] == {"connection_name": "a name of ours"}
    with pytest.raises(DeviceopsError, match="offers PLAIN AMQPLAIN"):
        async with connected(Settings(amqp_url=SecretStr(f"{amqp_url}?auth=external"))):
            pass


async def test_a_broker_that_does_not_answer_is_waited_for_as_long_as_its_address_says() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # the kernel takes the connection, and nothing answers
        port = server.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(DeviceopsError, match="does not answer"):
            async with connected(Settings(amqp_url=SecretStr(f"amqp://127.0.0.1:{port}/?timeout=0.5"))):
                pass
        assert 0.4 < time.monotonic() - began < 9
