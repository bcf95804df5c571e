#!/usr/bin/env bash
# Implements `deploy/install.sh --uninstall`: lists what is removed, asks on a terminal, and removes it.
# --keep-data leaves settings, secrets and data, and the user whose they are.
set -euo pipefail
VENV=/opt/deviceops

source "$(dirname "${BASH_SOURCE[0]}")/../environment.sh"
source "$root/deploy/systemd/places.sh"

# The Debian packages that came with deviceops and that nothing else has come to need.
find_packages() {
    local came also
    [ -s "$brought" ] || return 0
    mapfile -t came < <(sort -u "$brought" | comm -12 - <(installed_packages))
    [ ${#came[@]} -gt 0 ] || return 0
    also=$(apt-get -q --simulate purge "${came[@]}" | awk '/^(Purg|Remv) /{print $2}' | sort -u |
        comm -23 - <(printf '%s\n' "${came[@]%:*}" | sort -u))
    if [ -n "$also" ]; then
        say "These packages stay, as others need them now (${also//$'\n'/ }): ${came[*]}"
    else
        packages=("${came[@]}")
    fi
}

stop_services() {
    if is_booted; then
        systemctl stop deviceops.target 'deviceops-*' || true # what is not loaded need not be stopped
    fi
}

remove_units() {
    rm -rf "$units"/deviceops{.target,-*} /var/lib/systemd/timers/stamp-deviceops-*
    # What was enabled, and drop-ins.
    if [ -d /etc/systemd/system ]; then
        find /etc/systemd/system -depth \( -name 'deviceops.target*' -o -name 'deviceops-*' \) -exec rm -rf {} +
    fi
    rmdir "$units" "${units%/*}" 2>/dev/null || true # unless others are there
    if is_booted; then
        systemctl daemon-reload
        systemctl reset-failed 'deviceops*' || true
    fi
}

[ "$(id -u)" = 0 ] || fail "Only root can uninstall deviceops."
packages=()
find_packages
going=("$venv" "$command" "$units/deviceops*" "/etc/systemd/system/**/deviceops*")
if [ "${1:-}" != --keep-data ]; then
    going+=("$etc (settings and secrets)" "$state (data)" "the user $user")
fi
if [ ${#packages[@]} -gt 0 ]; then
    going+=("packages that came with it: ${packages[*]}")
fi
say "This goes:"
printf '   %s\n' "${going[@]}"
say "This stays: a PostgreSQL database, the queues at the broker, and what is in the journal."
if [ -t 0 ]; then
    read -r -p "Go on? [y/N] " answer
    [ "$answer" = y ] || fail "Nothing was removed."
fi

stop_services
remove_units
rm -rf "$command" "$venv"
if [ "${1:-}" != --keep-data ]; then
    if getent passwd "$user" >/dev/null; then
        userdel "$user"
    fi
    rm -rf "$etc" "$state"
fi
if [ ${#packages[@]} -gt 0 ]; then
    DEBIAN_FRONTEND=noninteractive apt-get purge -q -y "${packages[@]}"
fi
say "deviceops is gone."
