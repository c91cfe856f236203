#!/usr/bin/env bash
# Writes a backup of this machine's matrix-agent while it runs: a folder of archives that nobody else may read.
#   sudo ./scripts/backup.sh [--to DIRECTORY] [--keep N] [--rooms] [--secrets] [--env-file FILE] [--dry-run]
#     --to        where backups are kept (/var/backups/matrix-agent; without root, ~/.local/share/matrix-agent-backups)
#     --keep      remove older ones afterwards, so that this many remain
#     --rooms     the rooms' files too: what is in /workspace and in the agent's home
#     --secrets   settings, passwords and keys too, with the recovery key of the bot's encrypted rooms
#     --env-file  the settings, where the program reads them from elsewhere (matrix-agent --env-file FILE)
#     --dry-run   only say what would be written
# What is in it: the database (conversations, what is to be sent), the audit log, pictures and files that are still to be sent,
# the homeserver of scripts/setup-synapse.sh, and SHA256SUMS, the list of all that. What is not: images, environments, and the
# bot's Matrix session, since a restored machine gets a device of its own. Without --secrets keep .env and STATE_DIR/secrets
# elsewhere: the bot cannot read again what was written in encrypted rooms without its recovery key. Files that change meanwhile
# are copied as they are then. scripts/restore.sh brings it back.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
umask 077

HOMESERVER=${SYNAPSE_NAME:-matrix-agent-synapse}
to=/var/backups/matrix-agent
[[ $EUID -eq 0 ]] || to=${XDG_DATA_HOME:-$HOME/.local/share}/matrix-agent-backups
keep='' rooms='' secrets=''
while (($# > 0)); do
    case $1 in
        --to | --keep | --env-file) (($# > 1)) || die "$1 needs a value" "scripts/backup.sh --help lists the options" ;;&
        --to) to=$2 && shift ;;
        --keep) keep=$2 && shift ;;
        --env-file) ENV_FILE=$2 && shift
            [[ -f $ENV_FILE && -r $ENV_FILE ]] || die "$ENV_FILE is no file that this user can read" "Name the server's settings" ;;
        --rooms) rooms=yes ;;
        --secrets) secrets=yes ;;
        --dry-run) DRY_RUN=yes ;;
        -h | --help) show_help && exit 0 ;;
        *) die "$1 is not known" "scripts/backup.sh --help lists the options" ;;
    esac
    shift
done
[[ -z $keep || $keep =~ ^[1-9][0-9]{0,5}$ ]] || die "--keep $keep is no number of backups" "Give 1 or more"
state=$(state_dir)
check_restored "$state"
[[ -r $state/matrix-agent.db ]] || die "there is no database in $state that this user can read" "Set STATE_DIR, or run this as the server's user"
have sqlite3 || die "sqlite3 is not installed" "Run: apt-get install sqlite3"

part=
cleared() { [[ -z $part ]] || clear_away "$part"; }
trap cleared EXIT
if [[ -z $DRY_RUN ]]; then
    # Of two at once both would have the homeserver copied to the same place.
    exec {alone}<"$state"
    flock --nonblock "$alone" || { note "another backup is being written, or one is restored; this one waits for it" && flock --timeout 7200 "$alone"; } ||
        die "the other backup does not end" "Look what it does (ps ax | grep backup.sh), then try again"
    check_restored "$state" # a restore that this one has waited for may have been killed
    # What was killed is left over; what is being written by another one, as for another server, is locked.
    for one in "$state"/restoring-????????; do [[ ! -d $one ]] || clear_away "$one"; done
    { mkdir -p "$to" && exec {place}<"$to" && flock --timeout 60 "$place" && for one in "$to"/.part-????????; do
        [[ ! -d $one ]] || ! flock --nonblock "$one" true || clear_away "$one"
    done && part=$(mktemp -d "$to/.part-XXXXXXXX") && exec {writing}<"$part" && flock "$writing" && exec {place}<&-; } || die "$to cannot be written" "Choose another place with --to"
fi

database() {
    local fault address
    address=$(database_uri "$state/matrix-agent.db" mode=ro)
    (cd "$part" && sqlite3 "$address" ".timeout 60000" ".backup matrix-agent.db") || return 1
    fault=$(database_fault "$part/matrix-agent.db")
    [[ -z $fault ]] || { printf 'its copy %s\n' "$fault" && return 1; }
}
change "copy the database" quietly "the database cannot be copied" "Mend what it says above" database

present=()
for folder in pictures outgoing terminal; do
    [[ ! -d $state/$folder ]] || present+=("$folder")
done
# A file that goes away meanwhile is no mistake.
archive() {
    local code=0
    tar --warning=no-file-removed --warning=no-file-changed --ignore-failed-read -czf "$@" || code=$?
    ((code < 2))
}
pack() {
    local what=(--no-recursion) one
    # How far the audit log has come is read before the log, so that it is never ahead of it.
    for one in "$state"/audit "$state"/audit/head "$state"/audit/*.jsonl; do
        [[ ! -e $one ]] || what+=("${one#"$state"/}")
    done
    # tar takes no option behind the last name.
    [[ ${#present[@]} -eq 0 ]] || what+=(--recursion "${present[@]}")
    archive "$part/state.tar.gz" -C "$state" "${what[@]}"
}
[[ ${#present[@]} -eq 0 && ! -d $state/audit ]] || change "pack the audit log, pictures and files" quietly "they cannot be packed" "Mend what it says above" pack

# A running homeserver's database is in the middle of something: a copy takes its place.
runs() { [[ $(podman container inspect --format '{{.State.Status}}' "$HOMESERVER" 2>/dev/null) == running ]]; }
homeserver() {
    local work=$part/homeserver out=() data
    data=$(podman volume inspect --format '{{.Mountpoint}}' "$HOMESERVER") || return 1
    [[ -n $secrets ]] || out=(secrets.yaml operator.token)
    if with_ids test -d "$data/postgres"; then
        out+=(postgres) # its files are in the middle of something
        podman exec "$HOMESERVER-db" sh -c 'pg_dump --format=custom synapse >/data/homeserver.pgdump' || return 1
    elif runs; then
        podman exec "$HOMESERVER" /opt/synapse/bin/python /opt/synapse/setup.py copy || return 1
        out+=(homeserver.db homeserver.db-wal homeserver.db-shm)
    fi
    mkdir "$work" &&
        podman volume export "$HOMESERVER" | with_ids tar -x --numeric-owner --same-permissions "${out[@]/#/--exclude=}" -C "$work" || return 1
    with_ids rm -f "$data/homeserver.db.copy" "$data/homeserver.pgdump" || return 1
    with_ids find "$work" -mindepth 1 -maxdepth 1 -printf '%P\0' |
        with_ids tar -c --numeric-owner -C "$work" --null -T - | gzip >"$work.tar.gz" && with_ids rm -rf "$work"
}
if have podman && podman volume exists "$HOMESERVER"; then
    change "copy the homeserver" quietly "the homeserver cannot be copied" "Mend what it says above" homeserver
else
    note "there is no homeserver of scripts/setup-synapse.sh here"
fi

# room RECORD: packs a room's files; an image is mounted by Podman for that unless it is.
room() {
    local record=$1 files packed volume code=0
    files=${record%.json}
    packed=$part/rooms/${files##*/}.tar.gz
    mkdir -p "$part/rooms" && cp "$record" "$part/rooms/" || return 1
    if [[ -d $files ]]; then
        with_ids tar --ignore-failed-read --numeric-owner -C "$files" -c . | gzip >"$packed"
    elif [[ -f $files.ext4 ]]; then
        volume=$(podman volume ls --quiet | xargs -r podman volume inspect --format '{{.Name}} {{index .Options "device"}}' |
            IMAGE=$files.ext4 awk '{ name = $1; sub(/^[^ ]* /, "") } $0 == ENVIRON["IMAGE"] { print name }') || return 1
        [[ -n $volume ]] || return 0 # no sandbox ever had it
        stat -c %s "$files.ext4" >"$part/rooms/${files##*/}.size" && podman volume mount "$volume" || return 1
        podman volume export "$volume" | gzip >"$packed" || code=1
        podman volume unmount "$volume" && return "$code"
    fi
}
if [[ -n $rooms ]]; then
    for record in "$state"/workspaces/*.json; do
        [[ -e $record ]] || continue
        change "pack the files of $(sed -nE 's/.*"room":"([^"]*)".*/\1/p' "$record")" \
            quietly "a room's files cannot be packed" "Mend what it says above, or leave --rooms out" room "$record"
    done
fi

# The folder that the program reads: the file's own, or the one in which quickstart has left a link to it.
settings=$(readlink -m -- "$ENV_FILE")
usual=${XDG_CONFIG_HOME:-$HOME/.config}/matrix-agent/.env
if ! own_folder "$settings" && [[ $usual -ef $settings ]]; then settings=$usual; fi

keys() {
    local one to=$part/secrets
    mkdir "$to" "$to/etc" || return 1
    if own_folder "$settings" && [[ -d ${settings%/*} ]]; then
        cp -R "${settings%/*}/." "$to/etc" || return 1
        # A link's file may not be there on another machine.
        while IFS= read -r -d '' one; do
            if [[ -f ${settings%/*}/$one ]]; then
                cp -L --remove-destination "${settings%/*}/$one" "$to/etc/$one" || return 1
            else
                rm "$to/etc/$one" || return 1 # of a link to a folder or to nothing there is nothing to keep
            fi
        done < <(find "$to/etc" -type l -printf '%P\0')
    elif [[ -r $settings ]]; then
        cp "$settings" "$to/etc/.env" || return 1
    fi
    mkdir "$to/state" && { [[ ! -d $state/secrets ]] || cp -R "$state/secrets/." "$to/state"; } || return 1
    # The session of this machine's device, and the key of its store.
    rm -f "$to"/state/matrix-*-session.json "$to"/state/matrix-*-store-key
    tar -C "$to" -czf "$to.tar.gz" etc state && rm -rf "$to"
}
if [[ -n $secrets && ! -r $settings ]]; then
    change "pack keys" quietly "they cannot be packed" "Mend what it says above" keys
    note "no settings were found in $settings, so this backup has none: name their file with --env-file, or keep them yourself"
elif [[ -n $secrets ]]; then
    change "pack settings and keys" quietly "they cannot be packed" "Mend what it says above" keys
fi

finish() {
    local name
    {
        printf 'format=1\nmade=%s\nhost=%s\nlist=SHA256SUMS\n' "$(date -u +%FT%TZ)" "$(hostname)"
        ! own_folder "$settings" || printf 'settings=%s\n' "${settings%/*}"
    } >"$part/about" && sums "$part" >"$part/SHA256SUMS" &&
        find "$part" -type d -exec chmod 700 {} + -o -exec chmod 600 {} + && sync -f "$part" || return 1
    # Its name is taken by making it, so that it is nobody else's.
    until name=$to/matrix-agent-$(date -u +%Y-%m-%dT%H%M%SZ) && mkdir "$name"; do
        [[ -e $name ]] && sleep 1 || return 1
    done
    mv -T "$part" "$name" && backup=$name part=
}
change "keep it in $to" quietly "it cannot be kept" "Mend what it says above" finish
[[ -n $DRY_RUN ]] || note "$backup: $(du -sh "$backup" | cut -f1)"

if [[ -n $keep ]]; then
    mapfile -t old < <(find "$to" -maxdepth 1 -name 'matrix-agent-????-??-??T??????Z' 2>/dev/null | sort -r | tail -n "+$((keep + 1))")
    for one in "${old[@]}"; do change "remove $one" rm -rf -- "$one"; done
fi
