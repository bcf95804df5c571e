"""TLS with the broker and with PostgreSQL: on either side, who cannot prove to be who they are is refused."""

import json
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import make_url, text

from tests.support.brokering import report
from tests.support.certificates import Authority, Certificate, Trust
from tests.support.command import Deviceops
from tests.support.services import PrivatePostgreSQL, PrivateRabbitMQ
from tests.support.serving import OPERATIONS, serving
from worker.amqp.connection import BrokerRefused, BrokerUnavailable, connected
from worker.config.settings import Settings
from worker.store import database

ADDRESS = "127.0.0.1"
PASSWORD = "for-this-test"  # noqa: S105


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    return Trust.of(ADDRESS, tmp_path_factory.mktemp("trust"))


def files(kind: str, ca: Authority | None = None, client: Certificate | None = None) -> dict[str, str]:
    """The settings that name files."""
    given = {"ca": ca and ca.file, "cert": client and client.cert, "key": client and client.key}
    return {f"{kind}_{name}_file": str(path) for name, path in given.items() if path is not None}


@dataclass(frozen=True)
class Ports:
    """Where the broker listens."""

    plain: int
    tls: int
    mutual: int
    expired: int


@pytest.fixture(scope="module")
def broker(trust: Trust) -> Iterator[Ports]:
    """A broker that speaks TLS in three ways."""
    with PrivateRabbitMQ() as server:
        listen, ca = server.listen_with_tls, trust.authority.file
        yield Ports(
            make_url(server.url).port or 0,
            listen(ca, *trust.server),
            listen(ca, *trust.server, demands_certificate=True),
            listen(ca, *trust.expired),
        )


def amqps(port: int, host: str = ADDRESS) -> str:
    return f"amqps://guest:guest@{host}:{port}/"


@pytest.fixture
def deviceops(deviceops_on_sqlite: Deviceops, broker: Ports, trust: Trust) -> Deviceops:
    """The command, with TLS to the broker."""
    return deviceops_on_sqlite.with_settings(amqp_url=amqps(broker.tls), **files("amqp", trust.authority))


def test_reports_go_through_a_broker_whose_certificate_is_trusted(deviceops: Deviceops) -> None:
    deviceops.out("run", "--until-idle", "0.1")
    deviceops.out("publish", "-", lines=json.dumps(report()) + "\n")

    assert deviceops.document("run", "--until-idle", "0.5")["applied"] == 1
    assert "queue device-operations.reports: ready" in deviceops.out("check")


def test_a_broker_that_asks_is_shown_our_certificate(deviceops: Deviceops, broker: Ports, trust: Trust) -> None:
    known = deviceops.with_settings(amqp_url=amqps(broker.mutual), **files("amqp", trust.authority, trust.client))

    known.out("run", "--until-idle", "0.1")
    known.out("publish", "-", lines=json.dumps(report()) + "\n")

    assert known.document("run", "--until-idle", "0.5")["applied"] == 1


BROKER_REFUSALS = {
    "unknown authority": "its certificate cannot be trusted: self-signed certificate in certificate chain",
    "system's authorities": "its certificate cannot be trusted: self-signed certificate in certificate chain",
    "other host": "its certificate cannot be trusted: Hostname mismatch",
    "expired": "its certificate cannot be trusted: certificate has expired",
    "no client certificate": "(it requires a client certificate|does it want a client certificate[?])$",
    "unknown client certificate": "(tlsv1 alert unknown ca|does it know who issued our certificate[?])$",
    "TLS where there is none": "the server does not speak TLS",
    "no TLS where there is": r"does it want TLS \(amqps://\)[?]$",
    "wrong password": "ACCESS_REFUSED",
    "no such virtual host": "does the virtual host exist",
}

MAY_HANG_UP = ("no TLS where there is", "no client certificate", "unknown client certificate")


def refused_settings(case: str, broker: Ports, trust: Trust) -> dict[str, str]:
    """Settings with which the broker, or the worker, refuses."""
    ours = files("amqp", trust.authority)
    match case:
        case "unknown authority":
            return {"amqp_url": amqps(broker.tls), **files("amqp", trust.stranger)}
        case "system's authorities":
            return {"amqp_url": amqps(broker.tls)}
        case "other host":
            return {"amqp_url": amqps(broker.tls, "localhost"), **ours}
        case "expired":
            return {"amqp_url": amqps(broker.expired), **ours}
        case "no client certificate":
            return {"amqp_url": amqps(broker.mutual), **ours}
        case "unknown client certificate":
            client = files("amqp", trust.authority, trust.strangers_client)
            return {"amqp_url": amqps(broker.mutual), **client}
        case "TLS where there is none":
            return {"amqp_url": amqps(broker.plain), **ours}
        case "no TLS where there is":
            return {"amqp_url": f"amqp://guest:guest@{ADDRESS}:{broker.tls}/"}
        case "wrong password":
            return {"amqp_url": f"amqps://guest:wrong@{ADDRESS}:{broker.tls}/", **ours}
        case _:
            return {"amqp_url": f"{amqps(broker.tls)}nowhere", **ours}


@pytest.mark.parametrize("case", BROKER_REFUSALS)
async def test_a_broker_that_refuses_or_is_refused_is_one_clear_line(
    deviceops_on_sqlite: Deviceops, broker: Ports, trust: Trust, case: str
) -> None:
    settings = refused_settings(case, broker, trust)
    for command in (["run", "--until-idle", "0.5"], ["publish", "-"]):
        done = deviceops_on_sqlite.with_settings(**settings, log_level="ERROR")(*command)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
        assert done.stderr.startswith("deviceops: broker amqp")
        assert re.search(BROKER_REFUSALS[case], done.stderr)

    with pytest.raises(BrokerUnavailable) as raised:
        async with connected(Settings(**settings)):  # type: ignore[arg-type]  # as text, as in the environment
            pass
    # One that hangs up, and whose last word got lost, may as well be on its way down.
    assert isinstance(raised.value, BrokerRefused) or case in MAY_HANG_UP


async def test_a_broker_that_is_away_has_not_refused() -> None:
    with pytest.raises(BrokerUnavailable) as raised:
        async with connected(Settings(amqp_url="amqps://127.0.0.1:1/")):
            pass
    assert not isinstance(raised.value, BrokerRefused)


async def test_a_file_that_is_missing_later_on_counts_as_a_refusal_which_is_tried_again_for_a_while(
    broker: Ports, tmp_path: Path
) -> None:
    gone = Settings(amqp_url=amqps(broker.tls), amqp_ca_file=tmp_path / "gone")
    with pytest.raises(BrokerRefused, match=r"DEVICEOPS_AMQP_CA_FILE: .* cannot be read"):
        async with connected(gone):
            pass


@pytest.fixture(scope="module")
def postgresql(trust: Trust) -> Iterator[PrivatePostgreSQL]:
    """A PostgreSQL with two users that come by TLS only: `worker` by a password, `mutual` by a certificate."""
    server = PrivatePostgreSQL()
    server.configuration = {
        "ssl": "on",
        "ssl_ca_file": server.keep("ca.pem", trust.authority.file.read_bytes()),
        "ssl_cert_file": server.keep("server.pem", trust.server.cert.read_bytes()),
        "ssl_key_file": server.keep("server.key", trust.server.key.read_bytes()),
    }
    server.access = [
        f"hostssl all worker {ADDRESS}/32 scram-sha-256",
        f"hostssl all mutual {ADDRESS}/32 trust clientcert=verify-ca",
    ]
    with server:
        server.execute(
            f"CREATE ROLE worker SUPERUSER LOGIN PASSWORD '{PASSWORD}'", "CREATE ROLE mutual SUPERUSER LOGIN"
        )
        yield server


@pytest.fixture
def on_postgresql(postgresql: PrivatePostgreSQL, trust: Trust, tmp_path: Path) -> Deviceops:
    """The command, with TLS to PostgreSQL."""
    settings = {"database_url": of(postgresql, "worker"), "amqp_url": f"amqp://{ADDRESS}:1/"}
    deviceops = Deviceops(tmp_path, {**settings, **files("database", trust.authority)})
    deviceops.out("migrate")
    return deviceops


def of(
    server: PrivatePostgreSQL, user: str, password: str = PASSWORD, host: str = ADDRESS, query: str = ""
) -> str:
    """The database's URL for a user."""
    port = make_url(server.url).port
    return f"postgresql://{user}:{password}@{host}:{port}/postgres{query}"


def test_the_database_is_spoken_to_over_tls_by_everything_that_does(on_postgresql: Deviceops) -> None:
    assert on_postgresql.document("ingest", "-", lines=json.dumps(report()) + "\n")["received"] == 1
    assert "postgres: ready" in on_postgresql("check").stdout
    with serving(on_postgresql) as server, server.client() as client:
        assert client.get(OPERATIONS).is_success
        [operation, *_] = on_postgresql.document("status")
        # The events come by a connection of their own, which listens.
        with client.stream("GET", f"{OPERATIONS}{operation['id']}/events") as events:
            assert next(line for line in events.iter_lines() if line.startswith("data: "))


async def test_the_files_for_the_database_are_read_for_each_connection(
    postgresql: PrivatePostgreSQL, trust: Trust, tmp_path: Path
) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(trust.stranger.file.read_bytes())
    settings = Settings(database_url=of(postgresql, "worker"), database_ca_file=ca)
    async with database.opened(settings) as opened:
        with pytest.raises(ssl.SSLCertVerificationError):
            await _ask(opened)
        ca.write_bytes(trust.authority.file.read_bytes())
        await _ask(opened)


async def _ask(opened: database.Database) -> None:
    async with opened.read() as connection:
        await connection.execute(text("SELECT 1"))


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_the_mode_of_the_url_holds_beside_files(
    on_postgresql: Deviceops, postgresql: PrivatePostgreSQL, mode: str
) -> None:
    url = of(postgresql, "worker", host="localhost", query=f"?sslmode={mode}")

    done = on_postgresql.with_settings(database_url=url)("status")

    if mode == "verify-full":
        assert "its certificate cannot be trusted: Hostname mismatch" in done.stderr
    assert done.returncode == (mode == "verify-full"), done.stderr


def test_a_database_that_asks_is_shown_our_certificate(
    on_postgresql: Deviceops, postgresql: PrivatePostgreSQL, trust: Trust
) -> None:
    known = on_postgresql.with_settings(
        database_url=of(postgresql, "mutual"), **files("database", trust.authority, trust.client)
    )
    known.out("status")


DATABASE_REFUSALS = {
    "unknown authority": "its certificate cannot be trusted: self-signed certificate in certificate chain",
    "other host": "its certificate cannot be trusted: Hostname mismatch",
    "no client certificate": "connection requires a valid client certificate",
    "unknown client certificate": "TLS fails: tlsv1 alert unknown ca",
    "no TLS": "no encryption",
    "no authority in its usual place": "root certificate file",
    "wrong password": 'password authentication failed for user "worker"',
}


@pytest.mark.parametrize("case", DATABASE_REFUSALS)
def test_a_database_that_refuses_or_is_refused_is_one_clear_line(
    tmp_path: Path, postgresql: PrivatePostgreSQL, trust: Trust, case: str
) -> None:
    url, given = of(postgresql, "worker"), files("database", trust.authority)
    match case:
        case "unknown authority":
            given = files("database", trust.stranger)
        case "other host":
            url = of(postgresql, "worker", host="localhost")
        case "no client certificate":
            url = of(postgresql, "mutual")
        case "unknown client certificate":
            url, given = of(postgresql, "mutual"), files("database", trust.authority, trust.strangers_client)
        case "no TLS":
            url, given = f"{url}?sslmode=disable", {}
        case "no authority in its usual place":
            url, given = f"{url}?sslmode=verify-full", {}
        case _:
            url = of(postgresql, "worker", "wrong")
    settings = {"database_url": url, "log_level": "ERROR", **given}
    deviceops = Deviceops(tmp_path, settings).with_environment(HOME=str(tmp_path))

    for command in ("status", "migrate", "serve", "run"):
        done = deviceops(command)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
        assert done.stderr.startswith("deviceops: database postgresql"), done.stderr
        assert DATABASE_REFUSALS[case] in done.stderr


def test_a_wrong_file_is_told_by_the_command_too(deviceops_on_sqlite: Deviceops) -> None:
    done = deviceops_on_sqlite.with_settings(amqp_url="amqps://h/", amqp_ca_file="none")("status")
    assert (done.returncode, done.stderr) == (
        2,
        "deviceops: DEVICEOPS_AMQP_CA_FILE: none cannot be read: No such file or directory\n",
    )
