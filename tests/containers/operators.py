"""The objects of RabbitMQ's and PostgreSQL's operators, as their documentation has them.

No package has the operators' own schemas, so these are the fields that we use, and any other is refused.

- `RabbitmqCluster` of the RabbitMQ Cluster Operator: https://www.rabbitmq.com/kubernetes/operator/using-operator
- `Cluster` and `Pooler` of CloudNativePG: https://cloudnative-pg.io/documentation/current/cloudnative-pg.v1
"""

from typing import Annotated, Literal

import kubernetes_validate
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic.alias_generators import to_camel

from tests.containers.files import Object

Quantity = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(m|[kKMGTPE]i?)?$")]
Name = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]{0,48}[a-z0-9])?$")]
"""Of an object after which the operator names others."""


class Fields(BaseModel):
    """A part of an object, with the names as they are in YAML; no other is allowed, and no value is converted."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True)


class Metadata(Fields):
    """What every object of ours has."""

    name: Name
    namespace: Literal["deviceops"]


class Persistence(Fields):
    """The volume of each node."""

    storage: Quantity


Plugin = Annotated[str, Field(pattern=r"^\w+$", max_length=100)]


class RabbitmqConfiguration(Fields):
    """What the operator adds to its own rabbitmq.conf, and plugins besides its own."""

    additional_plugins: Annotated[
        list[Annotated[str, Field(pattern=r"^\w+$", max_length=100)]], Field(max_length=100)
    ]
    additional_config: Annotated[str, Field(pattern=r"^([a-z_.]+ = [\w.]+\n)+$")]


class RabbitmqClusterSpec(Fields):
    """Nodes of a RabbitMQ cluster; `affinity` and `resources` are those of a pod."""

    replicas: Annotated[int, Field(ge=0)]
    image: str
    persistence: Persistence
    resources: Object
    rabbitmq: RabbitmqConfiguration
    affinity: Object


class RabbitmqCluster(Fields):
    """An object of the RabbitMQ Cluster Operator."""

    api_version: Literal["rabbitmq.com/v1beta1"]
    kind: Literal["RabbitmqCluster"]
    metadata: Metadata
    spec: RabbitmqClusterSpec


class InitDb(Fields):
    """The database that a new cluster has."""

    database: str
    owner: str
    encoding: str
    data_checksums: bool


class Bootstrap(Fields):
    """How a cluster begins."""

    initdb: InitDb


class Synchronous(Fields):
    """What becomes synchronous_standby_names."""

    method: Literal["any", "first"]
    number: Annotated[int, Field(gt=0)]
    data_durability: Literal["required", "preferred"]
    failover_quorum: bool


class PostgresqlConfiguration(Fields):
    """PostgreSQL's own settings."""

    synchronous: Synchronous


class ClusterAffinity(Fields):
    """On which machines instances are."""

    enable_pod_anti_affinity: bool
    topology_key: str
    pod_anti_affinity_type: Literal["preferred", "required"]


class StorageSize(Fields):
    """The volume of each instance."""

    size: Quantity


class ClusterSpec(Fields):
    """Instances of a PostgreSQL cluster; `resources` are those of a pod."""

    instances: Annotated[int, Field(ge=1)]
    bootstrap: Bootstrap
    postgresql: PostgresqlConfiguration
    affinity: ClusterAffinity
    storage: StorageSize
    resources: Object


class Cluster(Fields):
    """A PostgreSQL of CloudNativePG."""

    api_version: Literal["postgresql.cnpg.io/v1"]
    kind: Literal["Cluster"]
    metadata: Metadata
    spec: ClusterSpec


class LocalName(Fields):
    """The name of an object in the same namespace."""

    name: Name


class PgBouncer(Fields):
    """PgBouncer's settings; numbers are text there."""

    pool_mode: Literal["session", "transaction"]
    parameters: dict[str, str]


class PoolerSpec(Fields):
    """PgBouncers in front of a cluster."""

    cluster: LocalName
    instances: Annotated[int, Field(ge=1)]
    type: Literal["rw", "ro", "r"]
    pgbouncer: PgBouncer


class Pooler(Fields):
    """A PgBouncer of CloudNativePG."""

    api_version: Literal["postgresql.cnpg.io/v1"]
    kind: Literal["Pooler"]
    metadata: Metadata
    spec: PoolerSpec


GROUPS = ("rabbitmq.com/", "postgresql.cnpg.io/")
_KINDS: TypeAdapter[RabbitmqCluster | Cluster | Pooler] = TypeAdapter(
    Annotated[RabbitmqCluster | Cluster | Pooler, Field(discriminator="kind")]
)


def validate(each: Object, version: str) -> None:
    """Raise an error for an object that its operator's documentation, or Kubernetes' schema of a pod, excludes."""
    spec = _KINDS.validate_python(each).spec
    if isinstance(spec, PoolerSpec):
        return
    container = {"name": "server", "image": "server", "resources": spec.resources}
    affinity = {"affinity": spec.affinity} if isinstance(spec, RabbitmqClusterSpec) else {}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "server"}}
    kubernetes_validate.validate({**pod, "spec": {**affinity, "containers": [container]}}, version, strict=True)
