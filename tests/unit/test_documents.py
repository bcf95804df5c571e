"""Every command that a page shows is run by a test, or NOT_RUN says why not; links within the repository work."""

import re
from pathlib import Path

import pytest

from tests.support.documents import ROOT, Block, blocks, documents

NOT_RUN = {
    "two-commands": "CI runs tests/run.sh, which is what runs this; test_command_line runs the demo",
    "development": "tests/run.sh runs these, from the same environment",
    "fast-tests": "as development",
    "set-up": "as development",
    "checks": "as development",
    "getting-started-install": "fetches packages; test_install installs from a checkout",
    "benchmarks": "takes minutes; test_benchmarks runs the same with tiny sizes",
    "image": "wants a Docker engine; tests/containers builds and runs the image with podman",
    "compose-up": "wants a Docker engine; tests/containers runs the services of the compose file one by one",
    "compose-use": "as compose-up",
    "compose-cluster": "as compose-up; tests/containers runs its brokers and databases",
    "kubernetes": "wants a cluster; tests/containers validates all that is applied",
    "kubernetes-clusters": "as kubernetes",
}
"""Shell blocks that no test runs, by their names, and why."""

SHELL = [block for document in documents() for block in blocks(document, "sh")]
HOW_TO = (
    "name it behind its fence, as in ```sh backup, and have a test run the block(document, 'backup') of "
    "tests/support/documents.py, or say in NOT_RUN, in tests/unit/test_documents.py, why none can"
)


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_every_shell_command_in_the_documents_is_run_by_a_test_or_says_why_not(block: Block) -> None:
    assert block.name, f"{block}: {HOW_TO}"
    if block.name in NOT_RUN:
        return
    tests = [path.read_text() for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)]
    named = f'"{block.name}")'  # as in block("deploy/operating.md", "upgrade")
    assert any(named in test for test in tests), f"{block}: no test names {block.name!r}; {HOW_TO}"


def test_the_names_of_shell_blocks_are_used_once_and_nothing_else_is_excused() -> None:
    names = [(block.document, block.name) for block in SHELL]
    assert len(set(names)) == len(names)
    assert NOT_RUN.keys() <= {name for _, name in names}


def test_no_other_fence_hides_a_command() -> None:
    for document in documents():
        for language in ("bash", "shell", "console", "text"):
            assert not [*map(str, blocks(document, language))], "commands go in ```sh"


def anchors(document: Path) -> set[str]:
    """The names that a page's headings have in an address."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", documents())
def test_what_a_document_links_to_within_the_repository_is_there(document: str) -> None:
    page = ROOT / document
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


def test_the_document_that_each_command_prints_is_described() -> None:
    page = (ROOT / "deploy/cli.md").read_text()
    described = page[page.index("| command | document |") : page.index("\n\n**`changes`**")]
    sections = re.findall(r"^#{2,3} `deviceops ([^`]+)`\n(.*?)(?=^#{2,3} |\Z)", page, re.DOTALL | re.MULTILINE)
    printing = [name for name, section in sections if "| `--json` |" in section]
    assert len(printing) > 20
    for command in printing:
        group, _, name = command.rpartition(" ")
        rows = [row for row in described.splitlines() if not group or row.startswith(f"| `{group} ")]
        assert command == "changes" or any(f"`{name}`" in row or f"`{command}`" in row for row in rows), command
