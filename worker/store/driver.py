"""PostgreSQL's driver, imported when something of it is first used: commands on SQLite need none of it."""

from typing import Any


class _Driver:
    def __getattr__(self, name: str) -> Any:
        import asyncpg

        return getattr(asyncpg, name)


asyncpg = _Driver()
