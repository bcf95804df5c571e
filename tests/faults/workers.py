"""Workers under a supervisor, as processes of their own."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random

import httpx

from tests.faults.ledger import PATIENCE
from tests.support.services.machine import free_port

ROOT = Path(__file__).parents[2]
LOST, CONSUMING = '"broker connection lost, reconnecting"', '"consuming"'
"""What a worker logs when its broker goes away, and when it consumes from it again."""


class Worker:
    """A worker that lives again whenever it has died."""

    def __init__(self, folder: Path, settings: Mapping[str, object]) -> None:
        self.folder = folder
        folder.mkdir()
        self.port = free_port()
        self._lives = folder / "lives"
        self._log = folder / "log"
        self.settings = {**settings, "probe_port": self.port}
        self._process: subprocess.Popen[bytes] | None = None
        self._twins: list[Worker] = []

    def twin(self) -> "Worker":
        """Another worker with the same settings, not started."""
        folder = self.folder.with_name(f"{self.folder.name}-{self.port}-{len(self._twins)}")
        twin = Worker(folder, self.settings)
        self._twins.append(twin)
        return twin

    async def with_twins(self, number: int = 2) -> list["Worker"]:
        """This one and other workers with the same settings, once they are ready."""
        twins = [self.twin() for _ in range(number)]
        for each in twins:
            each.start()
        for each in twins:
            await each.is_ready()
        return [self, *twins]

    def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Start the supervisor, and so the first life."""
        ours = {f"DEVICEOPS_{name.upper()}": str(value) for name, value in self.settings.items()}
        outside = {name: value for name, value in os.environ.items() if not name.startswith("DEVICEOPS_")}
        with self._lives.open("ab") as lives, self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.lives"],
                cwd=self.folder,
                env={
                    **outside,
                    "PYTHONPATH": str(ROOT),
                    "SABOTAGE": str(self.folder),
                    **ours,
                    **(environment or {}),
                },
                stdin=subprocess.DEVNULL,
                stdout=lives,
                stderr=log,
            )

    @property
    def pid(self) -> int:
        """The present life's; 0 if there is none."""
        last = self._lives.read_text().splitlines()[-1:]
        return int(last[0].split()[1]) if last and last[0].startswith("born") else 0

    @property
    def deaths(self) -> list[int]:
        """The exit code of every life that has ended, negative for a signal."""
        lines = self._lives.read_text().splitlines()
        return [int(line.split()[2]) for line in lines if line.startswith("died")]

    @property
    def events(self) -> list[str]:
        """What all lives have logged, one after another, without the particulars."""
        return [json.loads(line)["event"] for line in self.log.splitlines() if line.startswith("{")]

    @property
    def log(self) -> str:
        """What all lives have logged."""
        return self._log.read_text()

    def sabotage(self, place: str, how: str = "die", passes: int = 0) -> None:
        """Have the worker die or hang at the place, once, after so many passes."""
        order = self.folder / f"{place}.new"
        order.write_text(f"{how} {passes}")
        order.rename(self.folder / place)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the present life, if there is one."""
        if pid := self.pid:  # 0 would be everybody in this process group
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    async def has_died(self, times: int = 1) -> None:
        """Return once so many lives have ended."""
        await self.until(lambda: len(self.deaths) >= times, f"{times} deaths")

    async def is_ready(self) -> None:
        """Return once it says that it is ready, also in its log, which is written a moment later."""
        await self.until(lambda: self.probe("readyz")[0] == httpx.codes.OK, "ready")
        await self.until(lambda: self.log.rfind(CONSUMING) > self.log.rfind(LOST), "consuming")

    def probe(self, path: str) -> tuple[int, str]:
        """What the worker answers there: 0 and nothing if it does not answer."""
        with suppress(httpx.HTTPError):
            response = httpx.get(f"http://127.0.0.1:{self.port}/{path}", timeout=2)
            return response.status_code, response.text
        return 0, ""

    def metrics(self) -> Mapping[str, float]:
        """The samples without labels that it shows Prometheus."""
        samples = (line.rsplit(" ", 1) for line in self.probe("metrics")[1].splitlines() if line[:1] != "#")
        return {name: float(value) for name, value in samples if "{" not in name}

    @property
    def timeout_lag(self) -> float:
        """The seconds for which it has seen what is over wait for a timeout; 0 if it does not answer."""
        return self.metrics().get("deviceops_timeout_lag_seconds", 0)

    async def still_waits(self, seconds: float) -> None:
        """Return once it has seen what is over wait for so many seconds, looking on all the time."""
        await self.until(lambda: self.timeout_lag, "late with a timeout")
        longer = self.timeout_lag + seconds
        await self.until(lambda: self.timeout_lag >= longer, f"late with a timeout for another {seconds} s")

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Return once a condition holds."""
        deadline = time.monotonic() + PATIENCE
        while not await asyncio.to_thread(condition):
            assert time.monotonic() < deadline, f"the worker is not {what}:\n{self.log[-3000:]}"
            await asyncio.sleep(0.05)

    async def stop(self) -> int:
        """Have it stop in order, and give its exit code."""
        assert self._process is not None
        self._process.terminate()
        return await asyncio.to_thread(self._process.wait, PATIENCE)

    def kill(self) -> None:
        """End the supervisor and the present life, whatever they are at, and those of its twins."""
        for twin in self._twins:
            twin.kill()
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
            for number in (signal.SIGKILL, signal.SIGCONT):
                self.signal(number)


async def killed(workers: Sequence[Worker], random: Random, seconds: float, passes: int = 3) -> None:
    """Kill one worker after the other, at random or before one of the next `passes` commits, for some seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        await asyncio.sleep(random.uniform(0, 0.5))
        worker = random.choice(workers)
        if random.random() < 0.5:
            worker.signal(signal.SIGKILL)
        else:
            worker.sabotage("before-commit", passes=random.randrange(passes))
