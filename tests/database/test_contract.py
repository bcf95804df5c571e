"""The examples of the contract have the outcomes that they name."""

from collections import Counter

from statemachine import Verdict
from tests.support.sending import NOW, encoded, process
from worker.asyncapi.examples import EXAMPLES
from worker.model.messages import Message
from worker.model.outcomes import Tally
from worker.store.database import Database


def outcomes(tally: Tally) -> Counter[str]:
    """What became of the reports of a message, but for those that it released."""
    found: Counter[str] = Counter(duplicate=tally.duplicate, announced=tally.announced)
    found.update({str(name): count for name, count in (*tally.verdicts.items(), *tally.dead_lettered.items())})
    return found - Counter({Verdict.APPLIED: tally.released})


async def test_of_each_example_becomes_what_it_says(database: Database) -> None:
    for example in EXAMPLES:
        sent = Message(encoded(example.body), NOW, message_id=example.message_id, type=example.type)

        tally = await process(database, [[sent]])

        assert outcomes(tally) == Counter(example.outcomes), example.name
