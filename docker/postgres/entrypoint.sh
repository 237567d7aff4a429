#!/bin/sh
# Makes the database at the first start, as the official image does; then becomes the server.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    password=$(mktemp)
    printf '%s\n' "${POSTGRES_PASSWORD:?POSTGRES_PASSWORD is not set}" >"$password"
    initdb -D "$PGDATA" -U "${POSTGRES_USER:-postgres}" --pwfile="$password" --auth=scram-sha-256 \
        --encoding=UTF8 --locale=C.UTF-8 >/dev/null
    rm "$password"
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    {
        [ -z "${POSTGRES_DB:-}" ] || echo "CREATE DATABASE \"$POSTGRES_DB\";"
        cat /docker-entrypoint-initdb.d/*.sql 2>/dev/null || true
    } | postgres --single -D "$PGDATA" postgres >/dev/null
fi
exec "$@" -c listen_addresses='*'
