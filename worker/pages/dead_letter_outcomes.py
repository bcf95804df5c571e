"""What came of dead letters that were replayed, or would come of them, in words and in numbers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from worker.dead_letters.replay import Summary
from worker.processing.decisions import Outcome

STILL_DEAD = "still dead: "
"""How outcomes begin of what stays a dead letter."""


class Prediction(NamedTuple):
    """What a replay of one dead letter would come to."""

    id: int
    outcome: str
    detail: str
    is_dead: bool


def predictions(outcomes: Mapping[int, Outcome]) -> Sequence[Prediction]:
    """The outcome of each dead letter, the oldest first."""
    return [
        Prediction(id_, of, "", False)
        if isinstance(of, str)
        else Prediction(id_, f"{STILL_DEAD}{of.reason}", of.detail, True)
        for id_, of in sorted(outcomes.items())
    ]


def numbers(summary: Summary) -> Counter[str]:
    """Numbers of reports by outcome; those that stay dead letters by reason."""
    document = dict(summary.document())
    dead = document.pop("still_dead")
    assert isinstance(dead, Mapping)
    del document["selected"]
    found: Counter[str] = Counter({name: n for name, n in document.items() if isinstance(n, int) and n})
    found.update({f"{STILL_DEAD}{reason}": n for reason, n in dead.items()})
    return found


def numbers_of(found: Sequence[Prediction]) -> Counter[str]:
    """Numbers of dead letters by outcome."""
    return Counter(each.outcome for each in found)


def in_words(summary: Summary) -> str:
    """Such as `applied`, or `2 applied, 1 still dead: conflict`."""
    found = numbers(summary)
    if sum(found.values()) == 1:
        return next(iter(found))
    return ", ".join(f"{number:,} {outcome}" for outcome, number in found.items()) or "nothing came of it"


def is_dead(outcome: str) -> bool:
    """Whether an outcome leaves a dead letter."""
    return outcome.startswith(STILL_DEAD)
