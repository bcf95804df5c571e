"""Each partition is one worker's, and workers have equally many."""

from collections import Counter
from random import Random
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from worker.model.sharing import Peer, share

PEERS = st.lists(st.builds(Peer, st.uuids(), st.just(8)), min_size=1, max_size=12, unique_by=lambda peer: peer.id)


@given(peers=PEERS, partitions=st.integers(1, 64))
def test_each_partition_is_one_workers_and_all_have_equally_many(peers: list[Peer], partitions: int) -> None:
    numbers = range(1, partitions + 1)
    shares = [share(peer.id, peers, numbers) for peer in peers]
    assert Counter(number for each in shares for number in each) == Counter(numbers)
    sizes = [len(each) for each in shares]
    assert max(sizes) - min(sizes) <= 1


@given(peers=PEERS, order=st.randoms())
def test_all_workers_come_to_the_same_shares(peers: list[Peer], order: Random) -> None:
    shuffled = peers.copy()
    order.shuffle(shuffled)
    assert [share(peer.id, peers, range(9)) for peer in peers] == [
        share(peer.id, shuffled, range(9)) for peer in peers
    ]


def test_a_queue_that_only_some_know_of_is_shared_by_its_number() -> None:
    peers = [Peer(UUID(int=number), 4) for number in range(3)]
    assert [share(peer.id, peers, [0, 7]) for peer in peers] == [{0}, {7}, set()]
