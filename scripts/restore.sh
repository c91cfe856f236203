#!/usr/bin/env bash
# Brings back what scripts/backup.sh has written, on a machine on which no server runs.
#   sudo ./scripts/restore.sh BACKUP [--force] [--dry-run]
#     BACKUP      the folder, as in /var/backups/matrix-agent/matrix-agent-2026-01-31T033000Z
#     --force     even if there is a database, a homeserver, files of rooms or settings already: they are put aside below
#                 STATE_DIR/before-restore-DATE; the homeserver's, which lies in a volume, is overwritten
#     --dry-run   only say what would be done
# First install as on the old machine, as far as scripts/quickstart.sh or scripts/install-service.sh need it; then stop the
# server (systemctl stop matrix-agent synapse) and restore. The bot logs in as a new device at its next start, which its
# recovery key signs (a backup with --secrets has it; else bring STATE_DIR/secrets/matrix-coder-recovery-key back by hand).
# What happened after the backup is not known to the restored server. What is to be sent from that time is looked for in its room
# first; but a question that was answered then is worked on once more, with all that its tools do.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/image.sh
. "$(dirname "$0")/image.sh"
umask 077

HOMESERVER=${SYNAPSE_NAME:-matrix-agent-synapse}
backup='' force=''
while (($# > 0)); do
    case $1 in
        --force) force=yes ;;
        --dry-run) DRY_RUN=yes ;;
        -h | --help) show_help && exit 0 ;;
        -*) die "$1 is not known" "scripts/restore.sh --help lists the options" ;;
        *) [[ -z $backup ]] || die "$1 is one backup too many" "Name one"
            backup=${1%/} ;;
    esac
    shift
done
[[ -n $backup ]] || die "no backup is named" "scripts/restore.sh --help says how"
grep -qsx format=1 "$backup/about" || die "$backup is no backup of scripts/backup.sh, or of a newer one" "Name a folder matrix-agent-… that it wrote"
[[ $(sqlite3 "file:$backup/matrix-agent.db?immutable=1" "PRAGMA quick_check" 2>/dev/null) == ok ]] ||
    die "the database in $backup is damaged (or sqlite3 is not installed)" "Take another backup"
for packed in "$backup"/*.tar.gz "$backup"/rooms/*.tar.gz; do
    [[ ! -e $packed ]] || gzip --test "$packed" 2>/dev/null || die "$packed is damaged" "Take another backup"
done
state=$(state_dir)
! taken "$state" || die "a server runs on $state (process $(<"$state/lock"))" "Stop it: systemctl stop matrix-agent, or kill it"
aside=$state/before-restore-$(date -u +%Y-%m-%dT%H%M%SZ)

# ---- what is there already ----

ours=()
for one in "$state"/{matrix-agent.db,matrix-agent.db-wal,matrix-agent.db-shm,matrix,pictures,outgoing,terminal}; do
    [[ ! -e $one ]] || ours+=("$one")
done
for one in "$state"/secrets/matrix-*-{session.json,store-key}; do
    [[ ! -e $one ]] || ours+=("$one")
done
for record in "$backup"/rooms/*.json; do
    files=$state/workspaces/$(basename "$record" .json)
    for one in "$files" "$files".{json,ext4}; do
        [[ ! -e $one ]] || ours+=("$one")
    done
done
volume=''
if [[ -e $backup/homeserver.tar.gz ]]; then
    have podman || die "podman is not installed" "Run scripts/quickstart.sh, or: apt-get install podman"
    for one in "$HOMESERVER" "$HOMESERVER-db"; do
        [[ $(podman container inspect --format '{{.State.Status}}' "$one" 2>/dev/null) != running ]] ||
            die "the homeserver runs ($one)" "Stop it: systemctl stop synapse synapse-db, or podman stop $one"
    done
    ! podman volume exists "$HOMESERVER" || volume=$HOMESERVER
fi
if [[ -z $force && ( -e $state/matrix-agent.db || -n $volume ) ]]; then
    die "$([[ -e $state/matrix-agent.db ]] && printf '%s holds a database' "$state" || printf 'the volume %s holds a homeserver' "$volume") already" \
        "--force puts it aside, or overwrites it"
fi

# ---- what comes back ----

put_aside() {
    local one
    for one in "${ours[@]}"; do
        mkdir -p "$aside/$(dirname "${one#"$state"/}")"
        mv "$one" "$aside/${one#"$state"/}"
    done
}
# A sandbox that still runs has the old files.
instance=$(instance_of "$state")
if [[ -n $instance && -d $backup/rooms ]] && have podman; then
    change "remove the sandboxes, which have the old files" remove_sandboxes "$instance"
fi
[[ ${#ours[@]} -eq 0 ]] || change "put what is in $state aside, in $aside" put_aside
[[ -n $DRY_RUN ]] || mkdir -p "$state/secrets" "$state/workspaces"
[[ ! -e $backup/state.tar.gz ]] || change "bring back pictures and files" tar -xzf "$backup/state.tar.gz" -C "$state" --no-same-owner

homeserver() {
    local data
    podman rm --force --ignore --time 10 "$HOMESERVER" "$HOMESERVER-db" || return 1
    [[ -z $volume ]] || podman volume rm "$volume" || return 1
    podman volume create "$HOMESERVER" && gunzip -c "$backup/homeserver.tar.gz" | podman volume import "$HOMESERVER" - &&
        data=$(podman volume inspect --format '{{.Mountpoint}}' "$HOMESERVER") &&
        { ! with_ids test -e "$data/homeserver.db.copy" || with_ids mv "$data/homeserver.db.copy" "$data/homeserver.db"; } &&
        with_ids chown --reference="$data/homeserver.yaml" "$data"
}
[[ ! -e $backup/homeserver.tar.gz ]] || change "bring back the homeserver in the volume $HOMESERVER" \
    quietly "the homeserver cannot be brought back" "Mend what it says above" homeserver

# room RECORD: makes the room's image anew, as the server does (src/sandbox/image.rs), or its directory.
room() {
    local name size work journal=()
    name=$(basename "$1" .json)
    [[ -e $backup/rooms/$name.tar.gz ]] || return 0
    work=$state/workspaces/$name.part
    rm -rf "$work" "$work.ext4"
    mkdir "$work" && with_ids tar --numeric-owner --same-permissions -xzf "$backup/rooms/$name.tar.gz" -C "$work" || return 1
    if [[ -e $backup/rooms/$name.size ]]; then
        size=$(<"$backup/rooms/$name.size")
        ((size < 4 << 30)) || journal=(-J size=32)
        truncate -s "$size" "$work.ext4" &&
            mke2fs -q -F -t ext4 -m 0 -b 4096 -i 8192 -E lazy_journal_init=1 "${journal[@]}" -d "$work" "$work.ext4" &&
            rm -rf "$work" && mv "$work.ext4" "$state/workspaces/$name.ext4" || return 1
    else
        mv "$work" "$state/workspaces/$name" || return 1
    fi
    cp "$1" "$state/workspaces/$name.json"
}
for record in "$backup"/rooms/*.json; do
    [[ -e $record ]] || continue
    change "bring back the files of $(sed -nE 's/.*"room":"([^"]*)".*/\1/p' "$record")" \
        quietly "a room's files cannot be brought back" "Mend what it says above" room "$record"
done

keys() {
    local work settings
    work=$(mktemp -d -p "$state")
    tar -xzf "$backup/secrets.tar.gz" -C "$work" --no-same-owner
    [[ ! -d $work/state ]] || cp -R "$work/state/." "$state/secrets"
    settings=$(readlink -m "$ENV_FILE")
    if [[ -e $settings ]]; then
        printf '%s stays; the old settings are in %s\n' "$settings" "$state/settings-of-the-backup"
        rm -rf "$state/settings-of-the-backup"
        mv "$work/etc" "$state/settings-of-the-backup"
    else
        mkdir -p "${settings%/*}"
        cp "$work/etc/.env" "$settings"
    fi
    rm -rf "$work"
}
[[ ! -e $backup/secrets.tar.gz ]] || change "bring back keys" keys

# The database is last: with it the server takes up the rest.
# By the empty file beside it the server knows that it comes from a backup (src/store/restored.rs).
database() {
    : >"$state/matrix-agent.db.restored" && install -m 600 "$backup/matrix-agent.db" "$state/matrix-agent.db.part" &&
        mv "$state/matrix-agent.db.part" "$state/matrix-agent.db"
}
change "bring back the database" database
note "now start the homeserver, if it came back (scripts/setup-synapse.sh), and the server (systemctl start matrix-agent)"
