"""The product agrees with the independent model on thousands of random streams, cut into random batches."""

from tests.support.agreement import check_group
from tests.support.databases import clear
from worker.store.database import Database

GROUPS, GROUPS_IN_FULL = 10, 30


async def test_the_product_agrees_with_the_model_on_thousands_of_random_streams(
    database: Database, full: bool
) -> None:
    for seed in range(GROUPS_IN_FULL if full else GROUPS):
        await clear(database)
        await check_group(database, seed)
