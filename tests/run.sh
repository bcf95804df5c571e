#!/usr/bin/env bash
# Everything that has to pass: lint, format, types, import contracts, known vulnerabilities, tests. Arguments go to
# pytest, as in `tests/run.sh -k laws`; `--full` runs the sizes of CI, `--long` tries each fault 100 times and soaks a
# worker for an hour. It installs what it needs; TEST_AMQP_URL and TEST_POSTGRESQL_URL name services to use, otherwise
# those of this machine are used, or private ones are started.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/../deploy/environment.sh"
cd "$root"

step() {
    printf '\n== %s\n' "$*"
    "$@"
}

# Which packages, if any, is for tests/support/services to say: it knows what the tests can use.
install_services() {
    local missing packages
    missing=$(python -m tests.support.services)
    if [ -n "$missing" ]; then
        mapfile -t packages <<<"$missing"
        apt_install "${packages[@]}"
        if [[ " ${packages[*]} " == *" prometheus "* ]]; then
            # Debian starts what it installs, and this one would listen to everybody; the tests start one of their own.
            as_root service prometheus stop || true
            as_root update-rc.d prometheus disable
        fi
    fi
}

step activate_environment dev
step install_services
# Once, for the hundreds of commands that tests start: where PYTHONDONTWRITEBYTECODE is set, each would do it again.
step python -m compileall -q statemachine worker tests
step ruff check .
step ruff format --check .
step mypy
step lint-imports
step python -m tests.support.audit
# In several processes, as most tests wait for a command to start; exec, so that a signal to this script reaches them.
step exec pytest --numprocesses=4 --dist=worksteal "$@"
