"""The `deviceops` command as its users have it: a process of its own, with settings from the environment."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO, Any

from tests.support import fork_server

TIMEOUT = 240
"""Seconds that a command may take."""
PIPE_SIZE = 2**20
"""Bytes that a command may write before it has to wait for a test to read them: many minutes of a worker's log."""


class Process(subprocess.Popen[str]):
    """A process that the end of its block waits for, but for a block that failed: that one kills it."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self.kill()
        super().__exit__(kind, error, traceback)


@dataclass(frozen=True)
class Deviceops:
    """The command with its settings and its working directory."""

    directory: Path
    settings: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=lambda: {"COLUMNS": "160"})
    wrapper: tuple[str, ...] = ()
    """A command that is to run this one, such as a profiler."""

    def with_settings(self, **settings: str) -> "Deviceops":
        """The same with other settings, named without their prefix."""
        return replace(self, settings={**self.settings, **settings})

    def with_environment(self, **variables: str) -> "Deviceops":
        """The same with more of the environment that is not ours."""
        return replace(self, environment={**self.environment, **variables})

    @property
    def variables(self) -> dict[str, str]:
        """The whole environment of the command."""
        outside = {name: value for name, value in os.environ.items() if not name.startswith("DEVICEOPS_")}
        ours = {f"DEVICEOPS_{name.upper()}": value for name, value in self.settings.items()}
        return {**outside, **ours, **self.environment}

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command; the test ends it."""
        return Process(
            [*self.wrapper, sys.executable, "-m", "worker", *arguments],
            cwd=self.directory,
            env=self.variables,
            text=True,
            **{
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "stdin": subprocess.DEVNULL,
                "pipesize": PIPE_SIZE,
                **options,
            },
        )

    @contextmanager
    def running(self, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
        """A command that does not outlive the block, whatever happens in it."""
        with self.start(*arguments, **options) as process:
            try:
                yield process
            finally:
                process.kill()

    def __call__(self, *arguments: str, lines: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, with `lines` on standard input.

        By the fork server, unless more than the width of its lines is special about its process.
        """
        if self.wrapper or self.environment.keys() - {"COLUMNS"}:
            options = {} if lines is None else {"stdin": subprocess.PIPE}
            with self.start(*arguments, **options) as process:
                out, err = process.communicate(lines, timeout=TIMEOUT)
            return subprocess.CompletedProcess(process.args, process.returncode, out, err)
        with TemporaryFile() as given, TemporaryFile() as printed, TemporaryFile() as logged:
            given.write((lines or "").encode())
            given.seek(0)
            streams = [each.fileno() for each in (given, printed, logged)]
            line = fork_server.server().start(arguments, self.directory, self.variables, streams)
            code = fork_server.exit_code(line, TIMEOUT)
            out, err = (_text(each) for each in (printed, logged))
        return subprocess.CompletedProcess(["deviceops", *arguments], code, out, err)

    def out(self, *arguments: str, lines: str | None = None) -> str:
        """What a command that must succeed prints."""
        done = self(*arguments, lines=lines)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def document(self, *arguments: str, lines: str | None = None) -> Any:
        """The document that a command with --json prints."""
        return json.loads(self.out(*arguments, "--json", lines=lines))


def _text(file: IO[bytes]) -> str:
    """What was written to a file, with line ends as a pipe in text mode has them."""
    file.seek(0)
    with io.TextIOWrapper(file) as text:
        return text.read()
