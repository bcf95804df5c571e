"""Which worker consumes which partition: each works that out by itself, from who there is."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple
from uuid import UUID


class Peer(NamedTuple):
    """A worker that consumes."""

    id: UUID
    partitions: int
    """How many it declares."""


def share(own: UUID, peers: Sequence[Peer], numbers: Iterable[int]) -> set[int]:
    """The numbers of the partitions that are a worker's own, one of `peers`: those of all differ by one at most.

    Workers that see other peers, for a moment, may come to consume the same partition, or none of them may.
    """
    ids = sorted(peer.id for peer in peers)
    return {number for number in numbers if ids[number % len(ids)] == own}
