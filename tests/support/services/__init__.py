"""RabbitMQ and PostgreSQL for the tests: those that answer, else private ones, else a clear error.

| file | holds |
|---|---|
| `server.py` | what all private servers share: find, start, stop, kill, leave nothing behind |
| `broker.py` | private RabbitMQs |
| `database.py` | private PostgreSQLs |
| `cluster.py` | private RabbitMQ clusters, whose nodes can be cut off from each other |
| `pair.py` | private pairs of PostgreSQLs: a primary and its standby |
| `network.py` | the networks of the clusters |
| `pooler.py` | private PgBouncers before a PostgreSQL |
| `debian.py` | a Debian 13 in a folder, with the newer versions of all three |
| `shared.py` | services that the processes of a test run share |
| `machine.py` | free ports and families of processes |

`python -m tests.support.services` names the Debian packages that the tests still need on this machine.
"""

from tests.support.services.broker import PrivateRabbitMQ, RabbitMQ4
from tests.support.services.cluster import RabbitMQ4Cluster, RabbitMQCluster
from tests.support.services.database import PostgreSQL17, PrivatePostgreSQL
from tests.support.services.pair import PostgreSQL17Pair, PostgreSQLPair
from tests.support.services.pooler import PgBouncer124, PoolMode, PrivatePgBouncer
from tests.support.services.server import PrivateServer, ServiceError

__all__ = [
    "BROKERS",
    "CLUSTERS",
    "DATABASES",
    "PAIRS",
    "POOLERS",
    "PgBouncer124",
    "PoolMode",
    "PostgreSQL17",
    "PostgreSQLPair",
    "PrivatePgBouncer",
    "PrivatePostgreSQL",
    "PrivateRabbitMQ",
    "PrivateServer",
    "RabbitMQ4",
    "RabbitMQCluster",
    "ServiceError",
]

BROKERS: dict[str, type[PrivateRabbitMQ]] = {"3.10": PrivateRabbitMQ, "4.0": RabbitMQ4}
"""By their versions: the first is this machine's, which is Debian 12's on the machines of CI."""
DATABASES: dict[str, type[PrivatePostgreSQL]] = {"15": PrivatePostgreSQL, "17": PostgreSQL17}
"""By their versions, as the brokers."""
POOLERS: dict[str, type[PrivatePgBouncer]] = {"1.18": PrivatePgBouncer, "1.24": PgBouncer124}
"""By their versions, as the brokers."""
CLUSTERS: dict[str, type[RabbitMQCluster]] = {"3.10": RabbitMQCluster, "4.0": RabbitMQ4Cluster}
"""By their versions, as the brokers."""
PAIRS: dict[str, type[PostgreSQLPair]] = {"15": PostgreSQLPair, "17": PostgreSQL17Pair}
"""By their versions, as the brokers."""
