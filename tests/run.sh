#!/usr/bin/env bash
# Everything that has to pass: lint, format, types, import contracts, known vulnerabilities, tests.
#
#   tests/run.sh             the everyday run
#   tests/run.sh --fast      lint, format, types, import contracts and tests/unit: seconds, no service, nothing installed
#                            but the Python packages
#   tests/run.sh --full      before a release: full sizes, on all versions of the services
#   tests/run.sh --long      tries each fault 100 times, and soaks a worker for an hour
#   tests/run.sh -k laws     other arguments go to pytest
#
# It installs what it needs; TEST_AMQP_URL and TEST_POSTGRESQL_URL name services to use, otherwise those of this
# machine are used, or private ones are started. tests/README.md has more.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/../deploy/environment.sh"
cd "$root"

step() {
    printf '\n== %s\n' "$*"
    "$@"
}

# Which packages, if any, is for tests/support/services to say: it knows what the tests can use.
# shellcheck disable=SC2329  # step calls it
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

check_code() {
    step ruff check .
    step ruff format --check .
    step mypy
    step lint-imports
}

step activate_environment dev
if [ "${1:-}" = --fast ]; then
    shift
    check_code
    step pytest tests/unit "$@"
    exit
fi
step install_services
step python -m tests.support.browsing.axe
# Once, for the hundreds of commands that tests start: where PYTHONDONTWRITEBYTECODE is set, each would do it again.
step python -m compileall -q statemachine worker tests
check_code
step python -m tests.support.audit

# run COMMAND…: in a process group of its own, to which signals to this script are passed on.
run() {
    local code=0
    printf '\n== %s\n' "$*"
    set -m
    "$@" &
    set +m
    trap 'kill -INT $!' INT
    trap 'kill -TERM $!' TERM
    wait $! || code=$?
    while kill -0 $! 2>/dev/null; do # a signal came
        wait $! || code=$?
    done
    trap - INT TERM
    return "$code"
}

# part NAME OPTIONS: one part of the tests. The exit code is that of the worst: failures before "none selected".
code=5
part() {
    local name=$1 found=0
    shift
    run pytest "--part=$name" "$@" || found=$?
    case $found in
    0) [ "$code" = 1 ] || code=0 ;;
    1) code=1 ;;
    5) ;; # none selected
    *) exit "$found" ;;
    esac
}

# Several processes, as many tests wait for something; no more, as others bound how long something takes, and two
# cores are busy with four.
processes=4
part most --numprocesses="$processes" --dist=worksteal "$@"
# Half of the tests for each process, which is those of one version: a cluster waits for its own timeouts mostly.
part clusters --numprocesses=2 --dist=worksteal "$@"
# In one process: among the others, each would wait for the longest test of the other processes, and those for it.
part alone "$@"
exit "$code"
