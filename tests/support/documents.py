"""The pages, the commands that they show in fenced blocks, and a shell to run those in."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.command import TIMEOUT, Deviceops

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```(?P<language>\w+)(?: (?P<name>[^\n]+))?\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block. Its name is the second word behind the fence, which no reader of the page sees."""

    document: str
    line: int
    language: str
    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def documents() -> list[str]:
    """All pages."""
    folders = ("deploy", "statemachine", "tests", "worker")
    below = sorted(str(path.relative_to(ROOT)) for folder in folders for path in (ROOT / folder).rglob("*.md"))
    return ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", *below]


def blocks(document: str, language: str) -> Iterator[Block]:
    """The blocks of one language in a document, in their order."""
    text = (ROOT / document).read_text()
    for found in _FENCE.finditer(text):
        if found["language"] == language:
            line = text.count("\n", 0, found.start()) + 1
            yield Block(document, line, language, found["name"] or "", found["text"])


def block(document: str, name: str) -> str:
    """The text of the shell block of that name."""
    [found] = [one for one in blocks(document, "sh") if one.name == name]
    return found.text


def run(script: str, deviceops: Deviceops, **variables: str) -> str:
    """What a shell prints that runs a block where a command would, with its settings, and that must succeed."""
    done = attempt(script, deviceops, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def attempt(script: str, deviceops: Deviceops, **variables: str) -> subprocess.CompletedProcess[str]:
    """The same of one that need not succeed."""
    ours = {f"DEVICEOPS_{name.upper()}": value for name, value in deviceops.settings.items()}
    outside = {name: value for name, value in os.environ.items() if not name.startswith("DEVICEOPS_")}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=deviceops.directory,
        env={**outside, **ours, **variables, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
