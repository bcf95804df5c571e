#!/bin/bash
# The command `deviceops` as the services are run: as their user, with their settings and secrets.
set -euo pipefail

if [ "$(id -un)" != deviceops ]; then
    if [ "$(id -u)" != 0 ]; then
        echo "deviceops: only root may run it as the user of the services: sudo deviceops …" >&2
        exit 1
    fi
    exec setpriv --reuid=deviceops --regid=deviceops --init-groups "$0" "$@"
fi

set -o allexport
# shellcheck source=deploy/systemd/deviceops.env
source /etc/deviceops/deviceops.env
for secret in /etc/deviceops/credentials/*; do
    name=${secret##*/}
    name=DEVICEOPS_${name^^}
    # As with the services, what the environment says comes before what a file says.
    if [ -f "$secret" ] && ! [ -v "$name" ]; then
        declare "${name}_FILE=$secret"
    fi
done
umask 077
[ -x . ] || cd / # such as root's home
exec /opt/deviceops/bin/deviceops "$@"
