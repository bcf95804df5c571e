"""A private RabbitMQ: this machine's, or RabbitMQ 4.0."""

import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import aio_pika

from tests.support.services.debian import OnDebian13
from tests.support.services.machine import free_port
from tests.support.services.server import PrivateServer


class PrivateRabbitMQ(PrivateServer):
    """A RabbitMQ of one node, with an epmd (the name server that Erlang starts beside it) of its own."""

    package = "rabbitmq-server"
    program = "rabbitmq-server"
    folders = "usr/lib/rabbitmq/bin"  # the one in PATH is a wrapper that insists on the user rabbitmq
    variable = "TEST_AMQP_URL"
    usual_urls: ClassVar[Sequence[str]] = ("amqp://guest:guest@127.0.0.1:5672/",)
    stop_signal = signal.SIGTERM

    def __init__(self, *, management: bool = False, partitions: bool = True) -> None:
        super().__init__()
        self.management_port = free_port() if management else None
        """Where the management plugin answers, if it is to be there."""
        plugins = {"rabbitmq_consistent_hash_exchange": partitions, "rabbitmq_management": management}
        enabled = ",".join(name for name, is_enabled in plugins.items() if is_enabled)
        self.keep("enabled_plugins", f"[{enabled}].".encode())
        if management:
            listening = f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {self.management_port}\n"
            self.keep("rabbitmq.conf", listening.encode())
        self.url = f"amqp://guest:guest@127.0.0.1:{self._port}/"
        self._environment |= {
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(free_port()),
            "ERL_EPMD_RELAXED_COMMAND_CHECK": "1",  # stop() may end it, whatever names it still holds
            # The files named here need not exist; they keep the machine's own from being read.
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self._directory / "advanced.config"),
            "RABBITMQ_CONFIG_FILE": str(self._directory / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(self._directory / "rabbitmq-env.conf"),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._directory / "enabled_plugins"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_LOG_BASE": str(self._directory),
            "RABBITMQ_MNESIA_BASE": str(self._directory / "data"),
            "RABBITMQ_NODENAME": "rabbit@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }

    @staticmethod
    async def connect(url: str) -> None:
        """Connect: whoever may do that may declare a topology too."""
        await (await aio_pika.connect(url, timeout=10)).close()

    def kill(self) -> None:
        """End as in a crash.

        RabbitMQ 3.10 writes a new quorum queue's particulars to the disk within a second or so: a queue that is
        younger when the server is killed is there again after a restart, but never answers.
        """
        super().kill()

    def stop(self) -> None:
        """End in order, epmd with it."""
        super().stop()
        self._popen("epmd", "-kill").wait()

    def control(self, *arguments: str, typed: str = "") -> str:
        """What rabbitmqctl prints, told what is typed when it asks. Raises CalledProcessError if it fails."""
        program = self._program.with_name("rabbitmqctl")
        return self._run(program, "--node", self._environment["RABBITMQ_NODENAME"], *arguments, typed=typed)

    def listen_with_tls(self, ca: Path, cert: Path, key: Path, *, demands_certificate: bool = False) -> int:
        """Have it listen for AMQP over TLS as well, until it ends, and give the port."""
        port = free_port()
        files = ", ".join(
            f'{{{name}, "{path}"}}' for name, path in {"cacertfile": ca, "certfile": cert, "keyfile": key}.items()
        )
        demands = str(demands_certificate).lower()
        options = f"[{files}, {{verify, verify_peer}}, {{fail_if_no_peer_cert, {demands}}}]"
        # The configuration file has one set of options for all listeners; this is what it would call.
        self.control(
            "eval",
            "rabbit_networking:ensure_ssl(), "
            f'ok = rabbit_networking:start_ssl_listener({{"127.0.0.1", {port}}}, {options}, 2).',
        )
        return port

    def _spawn(self) -> subprocess.Popen[bytes]:
        return self._popen(self._program)


class RabbitMQ4(OnDebian13, PrivateRabbitMQ):
    """A private RabbitMQ 4.0."""

    variable = "TEST_RABBITMQ_4_URL"
    usual_urls = ()
