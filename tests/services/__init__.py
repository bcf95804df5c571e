"""A RabbitMQ and a PostgreSQL for the tests: the one that answers, else a private one, else a clear error.

| file | holds |
|---|---|
| `server.py` | what both kinds of private server share: find, start, stop, kill, leave nothing behind |
| `broker.py` | a private RabbitMQ |
| `database.py` | a private PostgreSQL |
| `pooler.py` | a private PgBouncer before a PostgreSQL |
| `machine.py` | free ports and families of processes |

`python -m tests.services` names the Debian packages that the tests still need on this machine.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.services.broker import PrivateRabbitMQ
from tests.services.database import PrivatePostgreSQL
from tests.services.pooler import PrivatePgBouncer
from tests.services.server import PrivateServer, ServiceError

__all__ = [
    "PrivatePgBouncer",
    "PrivatePostgreSQL",
    "PrivateRabbitMQ",
    "PrivateServer",
    "ServiceError",
    "postgresql",
    "rabbitmq",
]


@contextmanager
def rabbitmq() -> Iterator[str]:
    """The URL of a RabbitMQ. Raises ServiceError if there is none to use and none to start."""
    with _service(PrivateRabbitMQ) as url:
        yield url


@contextmanager
def postgresql() -> Iterator[str]:
    """The URL of a PostgreSQL whose user may create databases. Raises ServiceError as rabbitmq() does."""
    with _service(PrivatePostgreSQL) as url:
        yield url


@contextmanager
def _service(private: type[PrivateServer]) -> Iterator[str]:
    url = private.find_url()
    if url is not None:
        yield url
        return
    with private() as server:
        yield server.url
