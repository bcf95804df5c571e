# Sourced by deploy/install.sh and uninstall.sh: where things are, and what both need to know.
# shellcheck shell=bash disable=SC2034,SC2154  # who sources it has the one, and uses the other

here=$root/deploy/systemd
user=deviceops
etc=/etc/deviceops
state=/var/lib/deviceops
command=/usr/local/bin/deviceops
# Not /etc/systemd/system, which is for what the administrator decides: what is enabled, and drop-ins.
units=/usr/local/lib/systemd/system
# The Debian packages that came with it.
brought=$venv/packages

say() {
    printf '== %s\n' "$*"
}

has_systemctl() {
    command -v systemctl >/dev/null
}

# Whether systemd runs, rather than being only installed, as in a container or a chroot.
is_booted() {
    [ -d /run/systemd/system ] && has_systemctl
}

installed_packages() {
    dpkg-query --show --showformat '${db:Status-Abbrev} ${binary:Package}\n' | sed -n 's/^ii *//p' | sort
}
