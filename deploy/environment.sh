# shellcheck shell=bash
# Sourced by deploy/demo.sh, deploy/install.sh and tests/run.sh: a virtual environment for this checkout.
# VENV names another place than .venv in the checkout.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$(realpath -m "${VENV:-$root/.venv}")

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

# as_root COMMAND…
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

# apt_install PACKAGE…
apt_install() {
    command -v apt-get >/dev/null || fail "Please install: $*"
    [ "$(id -u)" = 0 ] || command -v sudo >/dev/null || fail "Please install as root: apt-get install $*"
    as_root apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"
}

# The first Python that is new enough: printed.
find_python() {
    local candidate
    for candidate in python3 python3.{14..11}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    fail "deviceops needs Python 3.11 or newer, and none is in PATH."
}

# Makes the virtual environment, with nothing in it, where there is none that works.
make_environment() {
    local python
    if ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
        python=$(find_python)
        if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
            # Debian keeps these two apart from Python itself.
            apt_install "$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
        fi
        "$python" -m venv "$venv"
    fi
}

# activate_environment [EXTRA]: makes and fills the virtual environment where that is due, and puts it first in PATH.
activate_environment() {
    local extra=${1:-} wanted
    make_environment
    # The stamp says what was installed, from where. One with the extra serves those who need none as well.
    wanted="$root $(cat "$root/pyproject.toml" "$root/constraints.txt" | sha256sum)"
    if [[ "$(cat "$venv/.deviceops" 2>/dev/null)" != "$wanted$extra"* ]]; then
        "$venv/bin/python" -m pip install -q -c "$root/constraints.txt" -e "$root${extra:+[$extra]}"
        printf '%s\n' "$wanted$extra" >"$venv/.deviceops"
    fi
    export PATH="$venv/bin:$PATH"
}
