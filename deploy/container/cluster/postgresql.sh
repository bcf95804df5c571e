#!/bin/sh
# Starts a PostgreSQL of compose.cluster.yaml. With an empty folder the first server makes the database, and any other
# copies the server that can write and follows it, or the one that can write after a failover.
# With the argument `standby` it replaces its data by a new copy, and ends.
set -eu

name=$(hostname)
primary="host=postgresql,postgresql-2,postgresql-3 target_session_attrs=read-write user=replication connect_timeout=5"

# What is there stays until the copy is complete.
copy() {
    rm -rf "$PGDATA.new"
    PGPASSWORD=$(cat /run/secrets/replication_password) pg_basebackup \
        --dbname="$primary" --pgdata="$PGDATA.new" --write-recovery-conf --checkpoint=fast &&
        rm -rf "$PGDATA" && mv "$PGDATA.new" "$PGDATA"
}

case "${1:-}" in
standby)
    copy
    exit
    ;;
esac

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    # An answer of another server means that there is a database, which must not be made twice.
    if [ "$name" != postgresql ] ||
        pg_isready --quiet --host=postgresql-2 || pg_isready --quiet --host=postgresql-3; then
        until copy; do sleep 2; done
    fi
fi

# Standbys without a replication slot find what they missed in WAL that is kept.
exec docker-entrypoint.sh postgres -c cluster_name="$name" -c wal_keep_size=1GB
