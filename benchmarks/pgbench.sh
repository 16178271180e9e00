#!/bin/sh
# A PostgreSQL server at pgbench's queries that only read, from its start to its end, as one command:
#
#     pyhugetext bench -- sh benchmarks/pgbench.sh [TRANSACTIONS [POSTGRES]]
#
# Run it as a user who may start one (setpriv --reuid=postgres ...). The cluster is made in $PGDATA,
# where it is not there yet. The clients run without the library: the server is meant.
set -eu
transactions=${1:-20000}
postgres=${2:-$(ls /usr/lib/postgresql/*/bin/postgres | tail -n 1)}
bin=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)
export PGHOST="$PGDATA" PGDATABASE=postgres
client() { name=$1 && shift && env -u LD_PRELOAD "$bin/$name" "$@"; }
serve() {
    "$postgres" -D "$PGDATA" -k "$PGDATA" -h '' -c fsync=off -c autovacuum=off &
    server=$!
    until client pg_isready -q; do
        kill -0 "$server"
        sleep 0.1
    done
}
if ! [ -e "$PGDATA/filled" ]; then
    client initdb -D "$PGDATA" -A trust --no-sync
    serve
    client pgbench -i -q -s 5
    kill -INT "$server"
    wait "$server"
    touch "$PGDATA/filled"
fi
serve
client pgbench -n -S -M prepared -t "$transactions"
kill -INT "$server"
wait "$server"
