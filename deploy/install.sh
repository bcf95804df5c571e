#!/usr/bin/env bash
# deviceops as a service of this Debian or Ubuntu machine, as deploy/systemd/README.md says:
#   deploy/install.sh                           installs it from this checkout, or upgrades it; settings and data stay
#   deploy/install.sh --uninstall               removes all of it, settings and data too
#   deploy/install.sh --uninstall --keep-data   removes all but settings, secrets and data
# It starts nothing before it is known which database and which broker: DEVICEOPS_DATABASE_URL and DEVICEOPS_AMQP_URL
# say so the first time, or the files that it makes for them. EXTRAS=tracing installs that extra of pyproject.toml too.
set -euo pipefail
umask 022
# Python has to be accessible to the services' user, so not one in a home directory.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
VENV=/opt/deviceops

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
source "$root/deploy/systemd/places.sh"

install_python() {
    mkdir -p "$venv"
    installed_packages >"$work/before"
    command -v python3 >/dev/null || apt_install python3 python3-venv
    make_environment
    installed_packages | comm -13 "$work/before" - >>"$brought"
}

make_user() {
    if ! getent passwd "$user" >/dev/null; then
        useradd --system --user-group --home-dir "$state" --no-create-home --shell /usr/sbin/nologin "$user"
    fi
    install -d -o "$user" -g "$user" -m 0750 "$state"
}

# keep FILE: what standard input says, for root and the services to read; what is there already stays.
keep() {
    if [ ! -s "$1" ]; then
        cat >"$work/new"
        install -o root -g "$user" -m 0640 "$work/new" "$1"
    fi
}

configure() {
    install -d -o root -g "$user" -m 0750 "$etc" "$etc/credentials"
    keep "$etc/deviceops.env" <"$here/deviceops.env"
    # Empty, they are settings that every command refuses: nothing works on defaults meanwhile.
    keep "$etc/credentials/database_url" < <(printf '%s' "${DEVICEOPS_DATABASE_URL:-}")
    keep "$etc/credentials/amqp_url" < <(printf '%s' "${DEVICEOPS_AMQP_URL:-}")
}

# is_chosen NAME: whether that address is known, by its own file or by deviceops.env.
is_chosen() {
    [ -s "$etc/credentials/$1" ] || grep -qE "^DEVICEOPS_${1^^}(_FILE)?=." "$etc/deviceops.env"
}

fetch_wheels() {
    "$venv/bin/python" -m pip wheel -q --no-cache-dir -c "$root/constraints.txt" -w "$work/wheels" \
        "$root${EXTRAS:+[$EXTRAS]}"
}

install_wheels() {
    # The version may be the same as before, and pip would leave it at that.
    "$venv/bin/python" -m pip uninstall -q -y deviceops 2>/dev/null
    "$venv/bin/python" -m pip install -q --no-index --no-deps "$work"/wheels/*.whl
    install -m 0755 "$here/deviceops.sh" "$command"
}

install_units() {
    install -d "$units/deviceops-.service.d"
    install -m 0644 "$here"/deviceops*.{service,timer,target} "$units"
    install -m 0644 "$here"/deviceops-.service.d/*.conf "$units/deviceops-.service.d"
    if is_booted; then
        systemctl daemon-reload
    fi
}

[ "$(id -u)" = 0 ] || fail "deploy/install.sh wants to be run by root: sudo deploy/install.sh"
command -v apt-get >/dev/null || fail "deploy/install.sh is for Debian and Ubuntu, and there is no apt-get here."
case "$*" in
    "") ;;
    --uninstall | "--uninstall --keep-data") exec "$here/uninstall.sh" "${@:2}" ;;
    *) fail "Usage: deploy/install.sh [--uninstall [--keep-data]]" ;;
esac
is_new=$([ -e "$units/deviceops.target" ] || echo yes)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say "Python and what deviceops needs, in $venv"
install_python
# Before anything is stopped: this is what fails when there is no network.
fetch_wheels

say "The user $user, settings in $etc, data in $state"
make_user
configure
if is_booted && [ -z "$is_new" ]; then
    say "Stopping what runs: messages wait at the broker"
    systemctl stop deviceops.target 'deviceops-*'
fi
install_wheels
install_units
if [ -n "$is_new" ] && has_systemctl; then
    systemctl -q enable deviceops.target deviceops-worker@8081.service deviceops-{prune,recount}.timer
fi

if ! is_chosen database_url || ! is_chosen amqp_url; then
    say "Installed, and nothing was started, as it is not known which database and which broker: write their addresses into" \
        "$etc/credentials/database_url and $etc/credentials/amqp_url, and run deploy/install.sh again."
    exit
fi

say "The database's schema"
"$command" migrate || fail "The database is not ready, so nothing was started. Once $etc/credentials/database_url is" \
    "right and the database answers, run deploy/install.sh again."

if is_booted; then
    if systemctl -q is-enabled deviceops.target; then
        systemctl start deviceops.target
    fi
    say "Done. How it stands: systemctl list-dependencies deviceops.target; sudo deviceops check; sudo deviceops status"
elif has_systemctl; then
    say "Done, and nothing was started, as systemd does not run here. The units start with the next boot."
else
    say "Done, and nothing was started, as there is no systemd here. The units are in $units."
fi
