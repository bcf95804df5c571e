"""The parameters of addresses: each that is accepted does what it says, and no other one passes in silence."""

import socket
import time

import pytest
from pydantic import SecretStr
from sqlalchemy import make_url

from worker.amqp.connection import BrokerUnavailable, connected
from worker.config import postgresql_url, urls
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


@pytest.mark.parametrize(
    ("given", "servers", "shown"),
    [
        ("u@a:5432,b:5433/d", ["a, port 5432", "b, port 5433"], "u@a:5432,b:5433/d"),
        ("u:s3cr3t@a,b:5433/d", ["a, port 5432", "b, port 5433"], "u:***@a:5432,b:5433/d"),
        ("u@a,b/d?port=1", ["a, port 1", "b, port 1"], "u@a:1,b:1/d"),
        ("u@/d?host=a,b&port=1,2", ["a, port 1", "b, port 2"], "u@a:1,b:2/d"),
        ("u@ignored/d?host=a", ["a, port 5432"], "u@a/d"),
        ("u@[::1]:5433,[fe80::1]/d", ["::1, port 5433", "fe80::1, port 5432"], "u@[::1]:5433,[fe80::1]:5432/d"),
        ("u@[::1]/d", ["::1, port 5432"], "u@[::1]/d"),
        ("u@%2Frun%2Fsocket/d", ["socket /run/socket/.s.PGSQL.5432"], "u@/d?host=%2Frun%2Fsocket"),
        ("u@/d?host=/run/s&port=5", ["socket /run/s/.s.PGSQL.5"], "u@/d?host=%2Frun%2Fs&port=5"),
        ("/d", ["localhost, port 5432"], "/d"),
        ("u@a/d?sslmode=require", ["a, port 5432"], "u@a/d?sslmode=require"),
        (
            "u@a,b/d?target_session_attrs=any",
            ["a, port 5432", "b, port 5432"],
            "u@a:5432,b:5432/d?target_session_attrs=any",
        ),
    ],
)
def test_a_database_is_named_by_hosts_and_sockets_as_libpq_takes_them(
    given: str, servers: list[str], shown: str
) -> None:
    url = make_url(urls.database_url(SecretStr(f"postgresql://{given}")).get_secret_value())
    assert [str(server) for server in postgresql_url.target(url).servers] == servers
    assert postgresql_url.shown(url) == f"postgresql://{shown}"
    again = urls.database_url(SecretStr(url.set(drivername="postgresql").render_as_string(hide_password=False)))
    assert make_url(again.get_secret_value()) == url


def test_the_parameters_of_a_session_are_read_as_libpq_reads_them() -> None:
    options = "-csearch_path=one,two%20-c%20work_mem=5MB%20--random-page-cost=2%20-cdeviceops.note=a%5C%20b"
    text = f"postgresql://u@a/d?application_name=ours&connect_timeout=3&options={options}"
    target = postgresql_url.target(make_url(urls.database_url(SecretStr(text)).get_secret_value()))
    assert target.settings == {
        "search_path": "one,two",
        "work_mem": "5MB",
        "random_page_cost": "2",
        "deviceops.note": "a b",
    }
    assert (target.application_name, target.connect_timeout) == ("ours", 3)


@pytest.mark.parametrize(("hosts", "attributes"), [("a", "any"), ("a,b", "read-write")])
def test_where_several_hosts_are_named_the_one_that_can_write_is_wanted(hosts: str, attributes: str) -> None:
    url = urls.database_url(SecretStr(f"postgresql://u@{hosts}/d"))
    assert postgresql_url.target(make_url(url.get_secret_value())).session_attributes == attributes


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("u@a,,b/d", "names a host that is empty"),
        ("u@a,b/d?port=1,2,3", "names 2 hosts and 3 ports"),
        ("u@a,b:0/d", "invalid port: 0"),
        ("u@a..b,c/d", "invalid host"),
        ("u@a, b/d", "invalid host"),
        ("u@a,b/d?target_session_attrs=writable", "target_session_attrs is one of any, read-write"),
        ("u@a/d?connect_timeout=soon", "connect_timeout is a whole number of seconds"),
        ("u@a/d?options=-d3", "options has settings only"),
        ("u@a/d?options=-cx", "options has settings only"),
        ("u@a/d?sslrootcert=/f", "DEVICEOPS_DATABASE_…_FILE"),
        ("u@a/d?application_name=x&application_name=y", "more than once: application_name"),
        ("u@a,b", "names no database"),
        ("u:pa?s3cr3t@a/d", "percent-encode"),
        ("u:pa?x=s3cr3t&y=1@a/d", "percent-encode"),
        ("u@a/d?application_name=a%00b", "NUL"),
    ],
)
def test_a_databases_address_that_means_nothing_is_refused(given: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        urls.database_url(SecretStr(f"postgresql://{given}"))
    assert "s3cr3t" not in str(refused.value)


def test_a_broker_is_named_by_several_nodes() -> None:
    url = urls.amqp_url(SecretStr("amqp://u:s3cr3t@a:5672,b,[::1]:5673/v%2Fhost?heartbeat=5"))
    assert [(node.host, node.port, node.user, node.path) for node in urls.broker_nodes(url)] == [
        ("a", 5672, "u", "/v/host"),
        ("b", 5672, "u", "/v/host"),
        ("::1", 5673, "u", "/v/host"),
    ]
    assert urls.without_password(url) == "amqp://u:***@a:5672,b,[::1]:5673/v%2Fhost?heartbeat=5"
    fresh = urls.with_broker_login(url, SecretStr("amqp://other:new@elsewhere/"))
    assert fresh.get_secret_value() == "amqp://other:new@a:5672,b,[::1]:5673/v%2Fhost?heartbeat=5"


@pytest.mark.parametrize("hosts", ["a,", ",a", "a,,b", "a:0,b", "a:x,b", "a b,c", "a..b,c"])
def test_a_node_that_cannot_be_is_refused(hosts: str) -> None:
    with pytest.raises(ValueError, match=r"is not a broker URL|invalid (host|port)"):
        urls.amqp_url(SecretStr(f"amqp://u:s3cr3t@{hosts}/"))


async def test_each_node_of_a_broker_is_tried_and_named() -> None:
    settings = Settings(amqp_url=SecretStr("amqp://u:s3cr3t@127.0.0.1:1,127.0.0.1:2/"))
    with pytest.raises(BrokerUnavailable) as raised:
        async with connected(settings):
            pass
    assert type(raised.value) is BrokerUnavailable
    for port in (1, 2):
        assert f"127.0.0.1, port {port}: Connect" in str(raised.value)
    assert "s3cr3t" not in str(raised.value)


@pytest.mark.parametrize("name", ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"])
def test_what_gives_a_transaction_up_is_not_for_the_address_to_set(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        urls.database_url(SecretStr(f"postgresql://u@a/d?options=-c{name}=5"))


@pytest.mark.parametrize(
    "url", ["http://localhost:0/", "http://a host/", "http://localhost/a b", "amqp://localhost/"]
)
def test_a_url_of_the_management_plugin_that_leads_nowhere_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is not a URL such as"):
        urls.management_url(SecretStr(url))
    good = SecretStr("http://guest:guest@localhost:15672/")
    assert urls.management_url(good) is good
