#!/bin/sh
# POSTGRES_USER, POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE, POSTGRES_DB and PGDATA, as in Docker Hub's postgres.
set -eu
user=${POSTGRES_USER:-postgres} database=${POSTGRES_DB:-${POSTGRES_USER:-postgres}}
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  password=$(mktemp); trap 'rm -f "$password"' EXIT
  if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then cat "$POSTGRES_PASSWORD_FILE" > "$password"
  else printf '%s\n' "${POSTGRES_PASSWORD:?POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE is required}" > "$password"; fi
  initdb -D "$PGDATA" -U "$user" --pwfile "$password" --auth-host scram-sha-256 --auth-local trust -E UTF8 --locale C > /dev/null
  echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
  pg_ctl -D "$PGDATA" -w -o "-c listen_addresses='' -c unix_socket_directories=/tmp" start > /dev/null
  [ "$database" = postgres ] || createdb -h /tmp -U "$user" "$database"
  pg_ctl -D "$PGDATA" -w -m fast stop > /dev/null
  rm -f "$password"; trap - EXIT
fi
[ "${1:-postgres}" = postgres ] || exec "$@"
shift || true
exec postgres -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=/tmp "$@"
