"""Whether a package that constraints.txt pins has a known vulnerability: one is a failure.

Where the service that knows them cannot be reached, that is said, and nothing fails: pip-audit by itself may call
it a success when it could not look anything up.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

COMMAND = (sys.executable, "-m", "pip_audit", "--requirement", "constraints.txt", "--no-deps", "--disable-pip")
OPTIONS = ("--format", "json", "--progress-spinner", "off")


def judged(document: Mapping[str, Any]) -> tuple[int, list[str]]:
    """An exit code, and what is to be said, about what pip-audit found."""
    packages = document["dependencies"]
    found = [
        f"{package['name']} {package['version']}: {vulnerability['id']}, fixed in"
        f" {', '.join(vulnerability['fix_versions']) or 'no version'}"
        for package in packages
        for vulnerability in package.get("vulns", ())
    ]
    skipped = [package["skip_reason"] for package in packages if "skip_reason" in package]
    audited = len(packages) - len(skipped)
    lines = [*found, f"{audited} packages audited, {len(found)} known vulnerabilities"]
    if skipped:
        lines.append(f"NOT AUDITED: {len(skipped)} packages, such as: {skipped[0]}")
    return bool(found), lines


def main() -> int:
    """Audit, and say what came of it."""
    done = subprocess.run([*COMMAND, *OPTIONS], capture_output=True, text=True, check=False)
    try:
        code, lines = judged(json.loads(done.stdout))
    except ValueError:
        reason = (done.stderr.strip().splitlines() or [f"pip-audit ended with {done.returncode}"])[-1]
        code, lines = 0, [f"NOT AUDITED: any package: {reason}"]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return code


if __name__ == "__main__":
    sys.exit(main())
