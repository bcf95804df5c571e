"""The parameters of addresses, in a command and at a broker."""

import pytest
from pydantic import SecretStr

from tests.support.command import Deviceops
from worker.amqp.connection import connected
from worker.config.settings import Settings
from worker.errors import DeviceopsError

BROKER, DATABASE = "amqp://guest:s3cr3t@localhost/", "postgresql://user:s3cr3t@localhost/name"


def test_a_refused_parameter_is_one_line_that_names_the_setting(deviceops_on_sqlite: Deviceops) -> None:
    done = deviceops_on_sqlite.with_settings(amqp_url=f"{BROKER}?heartbeat=70000")("run", "--until-idle", "0.1")
    expected = (
        "deviceops: DEVICEOPS_AMQP_URL: the parameter heartbeat is invalid (expected once: a whole number of "
        "seconds up to 65,534, 0 for no heartbeats)\n"
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
