"""No secret is told: not in output, logs or errors, not in a process's arguments, whatever fails."""

import json
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
import yarl
from sqlalchemy import make_url

from tests.support.brokering import report
from tests.support.certificates import Authority
from tests.support.command import TIMEOUT, Deviceops
from tests.support.services import PrivatePostgreSQL, PrivateRabbitMQ

# In each the middle is the same however it is encoded; around it are signs that an URL has to encode.
BROKER, DATABASE = "b/@'br0kers3cr3t#?%", "d/@:datab4ses3cr3t#?%"
HASH = "5ec2e7" * 10 + "abcd"
TOLD = ("br0kers3cr3t", "datab4ses3cr3t", HASH)
"""What must not be found anywhere."""
COMMANDS: list[tuple[str, ...]] = [
    ("migrate",),
    ("check",),
    ("run", "--until-idle", "0.3", "--json"),  # declares what it takes to publish
    ("publish", "-"),
    ("run", "--until-idle", "0.3", "--json"),
    ("ingest", "-", "--json"),
    ("status",),
    ("recount",),
    ("serve",),
]


@dataclass(frozen=True)
class Services:
    """A broker and a database whose users have passwords, and what is needed for TLS with both."""

    broker: yarl.URL
    database: str
    files: Mapping[str, str]
    stranger: Path


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    directory = tmp_path_factory.mktemp("trust")
    authority, stranger = Authority(directory / "ours"), Authority(directory / "theirs")
    certificate, client = authority.issue("127.0.0.1"), authority.issue("worker.example")
    postgresql = PrivatePostgreSQL()
    postgresql.configuration = {
        "ssl": "on",
        "ssl_cert_file": postgresql.keep("server.pem", certificate.cert.read_bytes()),
        "ssl_key_file": postgresql.keep("server.key", certificate.key.read_bytes()),
    }
    postgresql.access = ["hostssl all worker 127.0.0.1/32 scram-sha-256"]
    with PrivateRabbitMQ() as rabbitmq, postgresql:
        rabbitmq.control("add_user", "worker", typed=f"{BROKER}\n")
        rabbitmq.control("set_permissions", "-p", "/", "worker", ".*", ".*", ".*")
        port = rabbitmq.listen_with_tls(authority.file, *certificate, demands_certificate=True)
        quoted = DATABASE.replace("'", "''")
        postgresql.execute(f"CREATE ROLE worker SUPERUSER LOGIN PASSWORD '{quoted}'")
        of_broker = {"amqp_ca_file": authority.file, "amqp_cert_file": client.cert, "amqp_key_file": client.key}
        yield Services(
            yarl.URL(f"amqps://worker:{quote(BROKER, safe='')}@127.0.0.1:{port}/", encoded=True),
            f"postgresql://worker:{quote(DATABASE, safe='')}@127.0.0.1:{make_url(postgresql.url).port}/postgres",
            {name: str(path) for name, path in {**of_broker, "database_ca_file": authority.file}.items()},
            stranger.file,
        )


def in_files(deviceops: Deviceops, *names: str) -> Deviceops:
    """The same with the values of settings in files."""
    settings = dict(deviceops.settings)
    for name in names:
        path = deviceops.directory / name
        path.write_text(settings.pop(name) + "\n")
        settings[f"{name}_file"] = str(path)
    return Deviceops(deviceops.directory, settings, deviceops.environment)


def told_by(deviceops: Deviceops, command: tuple[str, ...]) -> tuple[int, str]:
    """A command's exit code, and everything that it lets anybody see; one that serves is stopped when it does."""
    out = deviceops.directory / "out"
    with out.open("w") as file:
        options = {"stdin": subprocess.PIPE, "stdout": file, "stderr": file}
        with deviceops.start(*command, **options) as process:
            assert process.stdin is not None
            process.stdin.write(json.dumps(report()) + "\n")
            process.stdin.close()
            arguments, stopped = set(), False
            deadline = time.monotonic() + TIMEOUT
            while process.poll() is None:
                assert time.monotonic() < deadline
                arguments.add(Path(f"/proc/{process.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode())
                if not stopped and "listening" in out.read_text():
                    time.sleep(0.5)  # it says so just before it can be stopped in order
                    process.terminate()
                    stopped = True
                time.sleep(0.05)
    assert any(command[0] in line for line in arguments)
    return process.returncode, "\n".join([out.read_text(), *arguments])


CASES = [
    "all is well",
    "all is well, from files",
    "wrong passwords",
    "nobody answers",
    "an unknown authority",
    "wrong",
]


@pytest.mark.parametrize("case", CASES)
def test_no_command_tells_a_secret(services: Services, tmp_path: Path, case: str) -> None:
    key = Path(services.files["amqp_key_file"]).read_text().splitlines()[1]
    deviceops = Deviceops(
        tmp_path,
        {
            **services.files,
            "amqp_url": str(services.broker),
            "database_url": services.database,
            "api_tokens": json.dumps({"somebody": {"scopes": ["read:operation"], "hash": HASH}}),
            "http_port": "0",
            "log_level": "DEBUG",
        },
    )
    match case:
        case "all is well, from files":
            deviceops = in_files(deviceops, "amqp_url", "database_url", "api_tokens")
        case "wrong passwords":
            deviceops = deviceops.with_settings(
                amqp_url=str(services.broker).replace("br0ker", "no-br0ker"),
                database_url=services.database.replace("datab4se", "no-datab4se"),
            )
        case "nobody answers":
            deviceops = deviceops.with_settings(
                amqp_url=str(services.broker.with_port(1)),
                database_url=re.sub(r":\d+/", ":1/", services.database),
            )
        case "an unknown authority":
            stranger = str(services.stranger)
            deviceops = deviceops.with_settings(amqp_ca_file=stranger, database_ca_file=stranger)
        case "wrong":
            deviceops = deviceops.with_settings(
                amqp_url=f"amqp://worker:{BROKER}@h/",
                database_url=f"postgresql://worker:{DATABASE}@h/d",
                api_tokens=json.dumps({"somebody": {"scopes": ["none"], "hash": HASH}}),
                amqp_key_file=services.files["amqp_cert_file"],
            )
    expected = {"all is well": 0, "all is well, from files": 0, "wrong": 2}.get(case, 1)

    for command in COMMANDS:
        code, told = told_by(deviceops, command)

        assert code == expected, (command, told)
        assert [secret for secret in (*TOLD, key) if secret in told] == [], (command, told)
