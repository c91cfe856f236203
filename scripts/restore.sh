#!/usr/bin/env bash
# Brings back what scripts/backup.sh has written, on a machine on which no server runs.
#   sudo ./scripts/restore.sh BACKUP [--force] [--dry-run]
#     BACKUP      the folder, as in /var/backups/matrix-agent/matrix-agent-2026-01-31T033000Z
#     --force     even if there is a database, a homeserver or files of rooms already: they are put aside below
#                 STATE_DIR/before-restore-DATE, the homeserver's in the volume NAME-before-restore-DATE
#     --dry-run   only say what would be done
# All of the backup is looked at and unpacked beside what is there before anything changes; if a step fails afterwards, what was there
# is put back. First install as on the old machine, as far as scripts/quickstart.sh or scripts/install-service.sh need it; then stop the
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
have sqlite3 || die "sqlite3 is not installed" "Run: apt-get install sqlite3"

# ---- whether the backup is whole ----

damaged() { die "$1" "Take another backup; nothing was changed"; }
strange=$(find "$backup/" -mindepth 1 ! -type f ! -type d -printf '%P' -quit)
[[ -z $strange ]] || damaged "$backup/$strange is neither a file nor a folder"
if [[ -e $backup/SHA256SUMS ]]; then
    # A name begins behind 64 digits and two signs.
    odd=$({ cat "$backup/SHA256SUMS" && printf '\n=\n' && sums "$backup"; } | awk '
        $0 == "=" { listed = 1; next }
        { name = substr($0, 67) }
        !listed { if (name != "") sum[name] = substr($0, 1, 64); next }
        { seen[name] = 1 }
        !(name in sum) { print name " is not in the list"; next }
        sum[name] != substr($0, 1, 64) { print name " is not as it was written" }
        END { for (name in sum) if (!(name in seen)) print name " is missing" }' | sort | paste -sd ';' | sed 's/;/; /g') ||
        damaged "$backup cannot be read"
    [[ -z $odd ]] || damaged "$backup is not what SHA256SUMS lists: $odd"
elif grep -qsx list=SHA256SUMS "$backup/about"; then
    damaged "$backup/SHA256SUMS, the list of what is in it, is missing"
else
    note "this backup has no list of what is in it, so what may be missing is not noticed"
fi
fault=$(database_fault "$backup/matrix-agent.db")
[[ -z $fault ]] || damaged "the database in $backup $fault"

# archive_fault FILE: what is wrong with it; a name that leads out of where it is unpacked is nobody's mistake.
archive_fault() {
    local outside rest
    outside=$(LC_ALL=C tar -tzPf "$1" 2>/dev/null | awk '/^\/|(^|\/)\.\.(\/|$)/ && !n++') || { printf 'is damaged' && return; }
    [[ -z $outside ]] || { printf 'would write %s, out of its folder' "$outside" && return; }
    # An archive that was cut between two files ends without the empty blocks.
    rest=$(gunzip -c "$1" 2>/dev/null | tail -c 1024 | tr -d '\0' | wc -c) && [[ $rest == 0 ]] || printf 'is cut off'
}
for packed in "$backup"/*.tar.gz "$backup"/rooms/*.tar.gz; do
    [[ -e $packed ]] || continue
    fault=$(archive_fault "$packed")
    [[ -z $fault ]] || damaged "$packed $fault"
done
for record in "$backup"/rooms/*.size; do
    [[ ! -e $record || $(<"$record") =~ ^[1-9][0-9]{0,14}$ ]] || damaged "$record is no size"
    [[ ! -e $record ]] || have mke2fs || die "mke2fs is not installed" "Run: apt-get install e2fsprogs"
done

state=$(state_dir)
! taken "$state" || die "a server runs on $state (process $(<"$state/lock"))" "Stop it: systemctl stop matrix-agent, or kill it"
now=$(date -u +%Y-%m-%dT%H%M%SZ)
aside=$state/before-restore-$now

# ---- what is there already ----

ours=()
for one in "$state"/{matrix-agent.db,matrix-agent.db-wal,matrix-agent.db-shm,matrix-agent.db.restored,matrix,audit,pictures,outgoing,terminal}; do
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
volume='' arriving=$HOMESERVER-restoring before=$HOMESERVER-before-restore-$now
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
        "--force puts it aside"
fi

# ---- every change can be taken back ----

work='' moved_from=() moved_to=() swapped='' made='' done=''
# move FROM TO: nothing is at TO. Back goes all of it, in the reverse order.
move() {
    mkdir -p "$(dirname "$2")" && [[ ! -e $2 && ! -L $2 ]] && with_owner "$1" mv -T -- "$1" "$2" && moved_from+=("$1") && moved_to+=("$2")
}
# Rooms' files belong to ids that a user has only in Podman's namespace.
with_owner() {
    local of=$1
    shift
    if [[ -O $of ]]; then "$@"; else with_ids "$@"; fi
}
content() { with_ids find "$(podman volume inspect --format '{{.Mountpoint}}' "$1")" -mindepth 1 -maxdepth 1 "${@:2}"; }
pour() { content "$1" -exec mv -t "$(podman volume inspect --format '{{.Mountpoint}}' "$2")" {} +; }

take_back() {
    local code=$? at failed=''
    trap - EXIT
    trap '' INT TERM HUP # half of it back would be worse
    set +e
    if [[ -z $done ]]; then
        for ((at = ${#moved_to[@]} - 1; at >= 0; at--)); do
            mv -T -- "${moved_to[at]}" "${moved_from[at]}" 2>/dev/null || with_ids mv -T -- "${moved_to[at]}" "${moved_from[at]}" || failed=yes
        done
        # What is in the volume now is the backup's only when all of the old has left it.
        [[ $swapped != gone ]] || content "$HOMESERVER" -exec rm -rf {} + || failed=yes
        [[ -z $swapped ]] || { pour "$before" "$HOMESERVER" && podman volume rm "$before" >/dev/null; } || failed=yes
        [[ -z $made ]] || podman volume rm --force "$HOMESERVER" >/dev/null || failed=yes
        [[ ! -d $aside ]] || find "$aside" -depth -type d -empty -delete
        if [[ -n $failed ]]; then
            printf '✗ not all that was there could be put back. The rest of it is in %s and in the volume %s\n' "$aside" "$before" >&2
        elif [[ -n $work ]]; then
            printf '  what was there is as it was\n' >&2
        fi
    fi
    [[ ! -d $work ]] || rm -rf -- "$work" 2>/dev/null || with_ids rm -rf -- "$work"
    [[ -z $work || ! -e $backup/homeserver.tar.gz ]] || podman volume rm --force "$arriving" >/dev/null 2>&1
    exit "$code"
}
trap take_back EXIT
trap 'exit 130' INT TERM HUP

# ---- beside ----

# unpack ARCHIVE FOLDER: of the server's own; nothing in it may lead out of it, since what is here is followed.
unpack() {
    local link top
    mkdir -p "$2" && tar -xzf "$1" -C "$2" --no-same-owner || return 1
    while IFS= read -r -d '' link; do
        top=${link#"$2"/} && top=$(realpath -- "$2")/${top%%/*}
        [[ -L $link && $(realpath -m -- "$link") == "$top"/* ]] && continue
        printf '%s holds %s, which leads out of it or is no file\n' "$1" "${link#"$2"/}"
        return 1
    done < <(find "$2" ! -type f ! -type d -print0)
}

# room NAME: its image is made anew, as the server does (src/sandbox/image.rs), or its directory.
room() {
    local name=$1 to=$work/workspaces size journal=()
    mkdir -p "$to/$name" && with_ids tar --numeric-owner --same-permissions -xzf "$backup/rooms/$name.tar.gz" -C "$to/$name" || return 1
    [[ -z $(with_ids find "$to/$name" \( -type b -o -type c \) -print -quit) ]] || { printf '%s holds a device\n' "$name" && return 1; }
    if [[ -e $backup/rooms/$name.size ]]; then
        size=$(<"$backup/rooms/$name.size")
        ((size < 4 << 30)) || journal=(-J size=32)
        truncate -s "$size" "$to/$name.ext4" &&
            mke2fs -q -F -t ext4 -m 0 -b 4096 -i 8192 -E lazy_journal_init=1 "${journal[@]}" -d "$to/$name" "$to/$name.ext4" &&
            with_ids rm -rf "$to/$name" || return 1
    fi
    cp "$backup/rooms/$name.json" "$to/$name.json"
}

homeserver_beside() {
    local data
    podman volume rm --force "$arriving" && podman volume create "$arriving" && data=$(podman volume inspect --format '{{.Mountpoint}}' "$arriving") &&
        gunzip -c "$backup/homeserver.tar.gz" | with_ids tar -x --numeric-owner --same-permissions -C "$data" || return 1
    with_ids test -f "$data/homeserver.yaml" || { printf 'it has no homeserver.yaml\n' && return 1; }
    ! with_ids test -e "$data/homeserver.db.copy" || with_ids mv "$data/homeserver.db.copy" "$data/homeserver.db"
}

beside() {
    local record
    mkdir "$work/new" || return 1
    [[ ! -e $backup/state.tar.gz ]] || unpack "$backup/state.tar.gz" "$work/new" || return 1
    [[ ! -e $backup/secrets.tar.gz ]] || unpack "$backup/secrets.tar.gz" "$work/secrets" || return 1
    for record in "$backup"/rooms/*.tar.gz; do
        [[ ! -e $record ]] || room "$(basename "$record" .tar.gz)" || return 1
    done
    [[ ! -e $backup/homeserver.tar.gz ]] || homeserver_beside || return 1
    install -m 600 "$backup/matrix-agent.db" "$work/matrix-agent.db"
}
NOTHING="Mend what it says above, or take another backup"
if [[ -z $DRY_RUN ]]; then
    { mkdir -p "$state" && work=$(mktemp -d "$state/restoring-XXXXXXXX"); } || die "$state cannot be written" "Run this as the server's user"
fi
change "unpack the backup beside what is there" quietly "the backup cannot be unpacked" "$NOTHING" beside

# ---- in its place ----

put_aside() {
    local one
    for one in "${ours[@]}"; do move "$one" "$aside/${one#"$state"/}" || return 1; done
}
# A sandbox that still runs has the old files.
instance=$(instance_of "$state")
if [[ -n $instance && -d $backup/rooms ]] && have podman; then
    change "remove the sandboxes, which have the old files" quietly "they cannot be removed" "Mend what it says above" remove_sandboxes "$instance" "$state"
fi
[[ ${#ours[@]} -eq 0 ]] || change "put what is in $state aside, in $aside" quietly "it cannot be put aside" "Mend what it says above" put_aside

files() {
    local one
    for one in audit pictures outgoing terminal; do
        [[ ! -e $work/new/$one ]] || move "$work/new/$one" "$state/$one" || return 1
    done
}
[[ ! -e $backup/state.tar.gz ]] || change "bring back the audit log, pictures and files" quietly "they cannot be brought back" "Mend what it says above" files

homeserver() {
    local data
    podman rm --force --ignore --time 10 "$HOMESERVER" "$HOMESERVER-db" || return 1
    if [[ -n $volume ]]; then
        podman volume create "$before" && swapped=leaving && pour "$volume" "$before" && swapped=gone || return 1
    else
        podman volume create "$HOMESERVER" && made=yes || return 1
    fi
    data=$(podman volume inspect --format '{{.Mountpoint}}' "$HOMESERVER") && pour "$arriving" "$HOMESERVER" &&
        with_ids chown --reference="$data/homeserver.yaml" "$data"
}
[[ ! -e $backup/homeserver.tar.gz ]] || change "bring back the homeserver in the volume $HOMESERVER${volume:+, and put the old one aside in $before}" \
    quietly "the homeserver cannot be brought back" "Mend what it says above" homeserver

rooms() {
    local one
    for one in "$work"/workspaces/*; do move "$one" "$state/workspaces/${one##*/}" || return 1; done
}
shopt -s nullglob
packed=("$backup"/rooms/*.tar.gz)
[[ ${#packed[@]} -eq 0 ]] || change "bring back the rooms' files (${#packed[@]})" quietly "they cannot be brought back" "Mend what it says above" rooms

# Where the settings belong: where the program reads them here, or, on a new machine, where they were on the old one.
settings=$(readlink -m -- "$ENV_FILE")
linked=''
was=$(sed -n 's/^settings=//p' "$backup/about" | head -n 1)
if [[ ! -e $settings ]] && ! own_folder "$settings" && [[ $was == /* ]] && own_folder "$(realpath -m -- "$was")/.env" && [[ ! -e $was/.env ]]; then
    settings=$was/.env linked=yes
fi
apart=$state/settings-of-the-backup left=''

keys() {
    local one to
    while IFS= read -r -d '' one; do
        to=$state/secrets/$one
        [[ ! -e $to && ! -L $to ]] || move "$to" "$aside/secrets/$one" || return 1
        move "$work/secrets/state/$one" "$to" || return 1
    done < <(find "$work/secrets/state" ! -type d -printf '%P\0' 2>/dev/null)
    [[ -d $work/secrets/etc ]] || return 0
    if [[ ! -e $settings ]]; then
        while IFS= read -r -d '' one; do
            to=${settings%/*}/$one
            # In a clone there is nothing of it but .env.
            if [[ ! -e $to && ! -L $to ]] && { [[ $one == .env ]] || own_folder "$settings"; }; then
                move "$work/secrets/etc/$one" "$to" || return 1
            fi
        done < <(find "$work/secrets/etc" ! -type d -printf '%P\0')
        [[ -z $linked || -e $ENV_FILE ]] || ln -s "$settings" "$ENV_FILE" || return 1
    fi
    [[ -n $(find "$work/secrets/etc" ! -type d -print -quit) ]] || return 0
    [[ ! -e $apart ]] || move "$apart" "$aside/settings-of-the-backup" || return 1
    move "$work/secrets/etc" "$apart" && left=yes
}
[[ ! -e $backup/secrets.tar.gz ]] || change "bring back keys and settings" quietly "they cannot be brought back" "Mend what it says above" keys
[[ -z $left ]] || note "the settings here stay as they are (${settings%/*}); those of the backup that are not among them are in $apart"

# The database is last: with it the server takes up the rest.
# By the empty file beside it the server knows that it comes from a backup (src/store/restored.rs).
database() {
    mkdir -p "$state/secrets" "$state/workspaces" && : >"$work/restored" && move "$work/restored" "$state/matrix-agent.db.restored" &&
        sync -f "$work" && move "$work/matrix-agent.db" "$state/matrix-agent.db"
}
change "bring back the database" quietly "it cannot be brought back" "Mend what it says above" database
done=yes
[[ -n $DRY_RUN ]] || note "now start the homeserver, if it came back (scripts/setup-synapse.sh), and the server (systemctl start matrix-agent)"
