#!/bin/sh
# Makes the secrets that compose.yaml mounts, at random, in the folder `secrets` next to this script. What is there
# already stays: databases keep the password that they were set up with.
# With the argument `cluster`, those of compose.cluster.yaml too.
set -eu
umask 022

cd "$(dirname "$0")"
# Closed to others on this machine. The files within are not: each container reads its own as a user of its own.
mkdir -p -m 0700 secrets
cd secrets

random() {
    od -A n -t x1 -N 24 /dev/urandom | tr -d ' \n'
}

# keep FILE CONTENT
keep() {
    printf '%s\n' "$2" >"$1.new" && mv "$1.new" "$1"
}

if [ ! -e rabbitmq_conf ] || [ ! -e deviceops_amqp_url ]; then
    password=$(random)
    keep rabbitmq_conf "default_user = deviceops
default_pass = $password"
    keep deviceops_amqp_url "amqp://deviceops:$password@rabbitmq:5672/"
fi
if [ ! -e postgresql_password ] || [ ! -e deviceops_database_url ]; then
    password=$(random)
    keep postgresql_password "$password"
    keep deviceops_database_url "postgresql://deviceops:$password@postgresql/deviceops"
fi
if [ ! -e api_token ] || [ ! -e deviceops_api_tokens ]; then
    token=deviceops_$(random)
    hash=$(printf '%s' "$token" | sha256sum | cut -d ' ' -f 1)
    scopes='"read:operation", "read:device", "update:operation", "admin:dead-letters"'
    keep api_token "$token"
    keep deviceops_api_tokens "{\"demo\": {\"scopes\": [$scopes], \"hash\": \"$hash\"}}"
fi
[ -e grafana_password ] || keep grafana_password "$(random)"
if [ "${1:-}" = cluster ]; then
    [ -e erlang_cookie ] || keep erlang_cookie "$(random)"
    [ -e replication_password ] || keep replication_password "$(random)"
    # The same users and passwords, at every server.
    keep cluster_amqp_url "$(sed 's|@.*|@rabbitmq:5672,rabbitmq-2:5672,rabbitmq-3:5672/|' deviceops_amqp_url)"
    keep cluster_database_url "$(sed 's|@.*|@postgresql,postgresql-2,postgresql-3/deviceops|' deviceops_database_url)"
fi

echo "The API's token is in $PWD/api_token, the password of Grafana's user admin in $PWD/grafana_password."
