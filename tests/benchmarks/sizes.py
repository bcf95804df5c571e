"""How much a benchmark does, and how it tells where it is."""

from dataclasses import dataclass

from rich.progress import Progress, TaskID


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is done: the defaults are those whose figures are published."""

    rounds: int = 5
    reports: int = 30_000
    """Of one run of a consumer."""
    messages: int = 1_000_000
    """Of the backlog over which memory is watched."""
    seconds: float = 5
    """For each offered rate, in a round."""
    devices: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    """Device operations that are there already."""
    rates: tuple[int, ...] = (10, 100, 1_000, 5_000)
    """Reports offered in a second."""
    calls: int = 100
    """Of the HTTP API, for each thing that is read."""
    prefetches: tuple[int, ...] = (500, 1_000, 2_000)
    """Tried by the bare consumer, which then keeps the best."""
    concurrencies: tuple[int, ...] = (1, 8, 32)
    """Tried by the usual consumer, which then keeps the best."""
    large: int = 100_000
    """Devices of one large operation."""
    due: int = 2_000
    """Device operations that fall due in a second."""
    due_seconds: float = 20
    """For so long."""
    due_at_once: int = 100_000
    reports_beside: int = 1_000
    """In a second, beside those."""
    followers: int = 1_000
    """Of events over HTTP."""
    pages: int = 50
    """Open in browsers."""
    filtered: int = 1_000_000
    """Device operations of the operation whose pages are filtered, and that is exported."""
    repeats: int = 100_000
    """Repeated reports of each device operation of a page."""


DEFAULT = Sizes()
QUICK = Sizes(
    1, 1_000, 1_000, 0.5, (20, 200, 2_000), (10,), 5, (2_000,), (8,), 200, 100, 2, 500, 50, 5, 3, 20_000, 100
)
"""Enough to see that everything works; the figures mean nothing."""


@dataclass(slots=True)
class Steps:
    """A benchmark's progress bar."""

    progress: Progress
    task: TaskID
    at_work: bool = False
    """Whether a step has begun."""

    def begin(self, total: int) -> None:
        """There are so many steps."""
        self.progress.start_task(self.task)
        self.progress.update(self.task, total=total)

    def next(self, description: str) -> None:
        """The step before is done, if there was one, and this is the next."""
        self.progress.update(self.task, advance=int(self.at_work), description=description)
        self.at_work = True

    def end(self, description: str) -> None:
        """All steps are done."""
        self.progress.update(self.task, advance=int(self.at_work), description=description)
        self.at_work = False
