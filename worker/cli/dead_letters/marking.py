"""Change the status of selected dead letters, for discard and restore."""

from collections.abc import Awaitable, Callable

from worker.cli.common import actor, configure_logging, print_json, run_async, screen
from worker.cli.dead_letters.options import selected
from worker.config.settings import Settings
from worker.store.selection import Selection


def change_status(
    word: str, selection: Selection, limit: int | None, json: bool, change: Callable[..., Awaitable[int]]
) -> None:
    """Run `change` on the selected dead letters, and print how many there were; `word` is what was done."""
    settings = Settings.load()
    configure_logging(settings)
    count = run_async(_change_selected(settings, selection, limit, change))
    if json:
        print_json({word: count})
    else:
        screen.print(f"dead letters {word}: {count:,}")


async def _change_selected(
    settings: Settings, selection: Selection, limit: int | None, change: Callable[..., Awaitable[int]]
) -> int:
    async with selected(settings, selection, limit, "marking") as (database, progress):
        return await change(database, selection, actor=actor(), limit=limit, progress=progress)
