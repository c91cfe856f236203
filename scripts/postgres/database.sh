#!/bin/sh
# What runs in the database's container. It has no network: the homeserver reaches it by a socket in the volume that both
# have, and the kernel tells who connects. The homeserver's role is none of the superuser's.
#   database.sh serve     makes the database once, and serves it
#   database.sh answers   waits until it answers
#   database.sh load      reads a dump on standard input, into a database that is empty
set -eu
files=/data/postgres/$PGVERSION
umask 077

create() {
    rm -rf "$files.part"
    mkdir -p "$PGHOST"
    # `C`: Synapse takes no other order of letters, because a newer C library may sort differently.
    initdb --pgdata="$files.part" --username=postgres --auth-local=peer --auth-host=reject --encoding=UTF8 --locale=C >/dev/null
    echo 'local all all peer map=volume' >"$files.part/pg_hba.conf"
    printf 'volume synapse %s\n' synapse postgres >"$files.part/pg_ident.conf"
    printf '%s;\n' 'CREATE ROLE synapse LOGIN' 'CREATE DATABASE synapse OWNER synapse' |
        postgres --single -D "$files.part" postgres >/dev/null
    mv "$files.part" "$files"
}

case $1 in
    serve)
        [ -d "$files" ] || create
        exec postgres -D "$files" -c listen_addresses= -c "unix_socket_directories=$PGHOST"
        ;;
    answers)
        tries=600
        until pg_isready -q -d synapse; do
            tries=$((tries - 1))
            [ "$tries" -gt 0 ] || { echo "PostgreSQL does not answer" >&2 && exit 1; }
            sleep 0.1
        done
        ;;
    load) exec pg_restore --single-transaction --exit-on-error --no-owner --role=synapse --dbname=synapse ;;
esac
