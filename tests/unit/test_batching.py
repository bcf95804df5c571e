"""How deliveries take turns into batches, so that what workers die of holds nobody up."""

from pamqp.commands import Basic
from pamqp.common import FieldTable
from pamqp.header import ContentHeader

from worker.amqp.batching import Batcher
from worker.amqp.delivery import Delivery
from worker.amqp.reading import POISON_AFTER, is_poison_candidate


def delivered(tag: int, count: int | None = None, *, redelivered: bool = True) -> Delivery:
    """A delivery that came to nothing so many times before; None for one that is new."""
    headers: FieldTable = {} if count is None else {"x-delivery-count": count}
    method = Basic.Deliver("consumer", tag, redelivered and count is not None, "", "")
    header = ContentHeader(properties=Basic.Properties(headers=headers))
    return Delivery(b"\x00\x3c\x00\x3c" + method.marshal(), header.marshal(), b"")


def filled(*deliveries: Delivery) -> Batcher:
    batcher = Batcher()
    for delivery in deliveries:
        batcher.put(delivery)
    return batcher


async def taken(batcher: Batcher, size: int) -> list[list[int]]:
    """The tags of all batches of a batcher."""
    batches = []
    while batcher:
        batches.append([delivery.tag for delivery in await batcher.batch(size, 0)])
    return batches


def test_who_was_delivered_too_often_for_nothing_is_suspect() -> None:
    assert not is_poison_candidate(delivered(1))
    assert not is_poison_candidate(delivered(1, POISON_AFTER - 1))
    assert is_poison_candidate(delivered(1, POISON_AFTER))


def test_a_sender_cannot_make_a_new_message_suspect() -> None:
    assert not is_poison_candidate(delivered(1, POISON_AFTER, redelivered=False))


async def test_suspects_come_one_by_one_between_batches_of_others() -> None:
    batcher = filled(delivered(1, POISON_AFTER), delivered(2, POISON_AFTER), *map(delivered, range(3, 9)))

    turns = await taken(batcher, 2)

    assert (turns[0], turns[2], turns[4]) == ([3, 4], [5, 6], [7, 8])
    assert sorted(turns[1] + turns[3]) == [1, 2]
    assert len(turns) == 5


async def test_which_suspect_comes_first_is_drawn_by_lot() -> None:
    orders = [await taken(filled(delivered(1, POISON_AFTER), delivered(2, POISON_AFTER)), 9) for _ in range(64)]

    assert [[1], [2]] in orders
    assert [[2], [1]] in orders
