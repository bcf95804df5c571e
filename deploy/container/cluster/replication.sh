#!/bin/sh
# Run once, in the server that makes the database of compose.cluster.yaml: standbys may connect, and a commit waits until
# one of them has it. That is a setting of the database's folder, which standbys copy, so it holds after a failover too.
set -eu

echo "host replication replication all scram-sha-256" >>"$PGDATA/pg_hba.conf"
psql --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname=postgres <<'SQL'
\set password `cat /run/secrets/replication_password`
CREATE ROLE replication REPLICATION LOGIN PASSWORD :'password';
ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 ("postgresql", "postgresql-2", "postgresql-3")';
SQL
