#!/usr/bin/env bash
# Brings back what scripts/backup.sh has written, on a machine on which no server runs.
#   sudo ./scripts/restore.sh BACKUP [--force] [--env-file FILE] [--dry-run]
#     BACKUP      the folder, as in /var/backups/matrix-agent/matrix-agent-2026-01-31T033000Z
#     --force     even if there is a database, a homeserver or files of rooms already: they are put aside below
#                 STATE_DIR/before-restore-DATE, the homeserver's in the volume NAME-before-restore-DATE
#     --env-file  the settings, where the program reads them from elsewhere (matrix-agent --env-file FILE)
#     --dry-run   only say what would be done
# All of the backup is looked at and unpacked beside what is there before anything changes; if a step fails afterwards, what was there
# is put back (sandboxes are made anew); after a kill or a power cut the server does not start (STATE_DIR/restoring says so), and this
# script, run again, puts back what was there and begins anew. First install as on the old machine, as far as scripts/quickstart.sh or
# scripts/install-service.sh need it; then stop the server (systemctl stop matrix-agent synapse) and restore. The bot logs in as a new
# device at its next start, which its recovery key signs (a backup with --secrets has it; else bring
# STATE_DIR/secrets/matrix-coder-recovery-key back by hand).
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
        --env-file) (($# > 1)) || die "$1 needs a value" "scripts/restore.sh --help lists the options"
            ENV_FILE=$2 && shift
            [[ -f $ENV_FILE && -r $ENV_FILE ]] || die "$ENV_FILE is no file that this user can read" "Name the server's settings" ;;
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

[[ ! -e $backup/rooms || -d $backup/rooms ]] || damaged "$backup/rooms is no folder"

state=$(realpath -ms -- "$(state_dir)")
! taken "$state" || die "a server runs on $state (process $(<"$state/lock"))" "Stop it: systemctl stop matrix-agent, or kill it"
# ---- alone ----

exec {terminal}>&2
# What Podman leaves running must not keep the lock, nor whoever reads what is said here.
# shellcheck disable=SC2032 # what xargs starts ends with it
podman() { command podman "$@" {alone}>&- {terminal}>&-; }
if [[ -z $DRY_RUN ]]; then
    { mkdir -p "$state" && exec {alone}<"$state"; } || die "$state cannot be written" "Run this as the server's user"
    flock --nonblock "$alone" || die "a backup of $state is being written, or another one restored there" "Wait for its end, then try again"
else
    exec {alone}</dev/null
fi

# ---- every change can be taken back ----

# Before the first change this file says what is put aside (old), what is new, and which volumes are made; it is there until all is in its
# place (src/ops/lock.rs). What is aside is what was there: so it can be put back from wherever a restore was cut off, also the putting back.
# What is new is noted with what it is known by, since only that is removed: somebody may have put something there meanwhile.
marker=$state/restoring

# identity PATH: what a file keeps where it is moved on its file system. The number alone would soon be another file's.
identity() { stat -c %d:%i:%.9W -- "$1" 2>/dev/null || with_ids stat -c %d:%i:%.9W -- "$1" 2>/dev/null; }

# carry FROM TO [new]: nothing is at TO. FROM is at one of both places as a whole at any time, also between two file systems.
carry() {
    local of=$1
    [[ -d $(dirname "$2") ]] || mkdir -p -- "$(dirname "$2")" || return 1
    if [[ $(stat -c %d -- "$1") == "$(stat -c %d -- "$(dirname "$2")")" ]]; then
        with_owner "$of" mv -T -- "$1" "$2"
    else
        clear_away "$2.part" && clear_away "$1.part" && with_owner "$of" cp -a -T -- "$1" "$2.part" &&
            { [[ -z ${3:-} ]] || printf '%s\0' new "$2" "$(identity "$2.part")" >>"$marker"; } && sync -f "$(dirname "$2")" "$marker" &&
            with_owner "$of" mv -T -- "$2.part" "$2" && with_owner "$of" mv -T -- "$1" "$1.part" && clear_away "$1.part"
    fi
}
move() { ! there "$2" && carry "$@"; }
# Rooms' files and the homeserver's belong to ids that a user has only in Podman's namespace.
with_owner() {
    local of=$1
    shift
    if [[ -O $of ]]; then "$@"; else with_ids "$@"; fi
}
there() { [[ -e $1 || -L $1 ]] || { [[ $EUID -ne 0 && -e ${1%/*} && ! -x ${1%/*} ]] && with_ids test -e "$1" 2>/dev/null; }; }
content() { with_ids find "$(podman volume inspect --format '{{.Mountpoint}}' "$1")" -mindepth 1 -maxdepth 1 "${@:2}"; }
# In the order of their names: a database is always moved before its log.
pour() { content "$1" -print0 | LC_ALL=C sort -z | with_ids xargs -0r mv -t "$(podman volume inspect --format '{{.Mountpoint}}' "$2")" --; }

# A homeserver that is started by hand knows nothing of a restore, and what is moved while it runs is lost.
homeserver_stopped() {
    local one
    have podman || die "podman is not installed" "Run scripts/quickstart.sh, or: apt-get install podman"
    for one in "$HOMESERVER" "$HOMESERVER-db"; do
        [[ $(podman container inspect --format '{{.State.Status}}' "$one" 2>/dev/null) != running ]] ||
            die "the homeserver runs ($one)" "Stop it: systemctl stop synapse synapse-db, or podman stop $one"
    done
}

# ours PLACE: whether what is there is what the restore has put there, as put_back has read it in the marker.
ours() {
    [[ "${brought[$1]:-} " == *" $(identity "$1") "* || -L $1 && "${brought[$1]:-} " == *" $(readlink -- "$1") "* ]]
}
only_ours() {
    local one
    ! podman volume exists "$1" || while IFS= read -r -d '' one; do
        [[ " $2 " == *" $(identity "$one") "* ]] && continue
        printf '✗ the volume %s holds %s, which no restore has put there. Keep a copy if somebody needs it (podman volume export), then: podman volume rm %s\n' \
            "$1" "${one##*/}" "$1" >&2
        return 1
    done < <(content "$1" -print0)
}

# put_back: what the marker says; again as often as need be.
put_back() {
    local noted at place kept one part parts since
    local -A brought=() aside_at=()
    mapfile -d '' noted <"$marker" || return 1
    for ((at = 0; at + 2 < ${#noted[@]}; at += 3)); do
        place=${noted[at + 1]} kept=${noted[at + 2]}
        case ${noted[at]} in
            old) aside_at["$place"]=$kept ;;
            new) brought["$place"]+=" $kept" ;;
        esac
    done
    for ((at = 0; at + 2 < ${#noted[@]}; at += 3)); do
        place=${noted[at + 1]} kept=${noted[at + 2]}
        case ${noted[at]} in
            old)
                there "$kept" || continue
                parts=('') since=''
                # A log that is another database's would be read into this one; its own, if it has left at all, comes back behind it.
                case $place in
                    */matrix-agent.db | */homeserver.db) parts+=(-wal -shm) ;;
                esac
                for part in "${parts[@]}"; do
                    one=$place$part
                    there "$one" || continue
                    [[ -z $part || -z ${aside_at[$one]:-} ]] || there "${aside_at[$one]}" || continue
                    [[ -n $part ]] || ours "$one" || since=$kept.since
                    if [[ -n $since ]]; then
                        note "$one was put there since; it is kept in $since$part"
                        carry "$one" "$since$part" || return 1
                    else
                        clear_away "$one" || return 1
                    fi
                done
                carry "$kept" "$place" || return 1
                ;;
            new) ! ours "$place" || clear_away "$place" || return 1 ;;
            made) only_ours "$place" "$kept" && podman volume rm --force "$place" >/dev/null || return 1 ;;
            emptied)
                ! podman volume exists "$place" || [[ -n $(content "$place" -print -quit) ]] || podman volume rm "$place" >/dev/null || return 1
                ;;
            aside) [[ ! -d $place ]] || find "$place" -depth -type d -empty -delete || return 1 ;;
        esac
    done
    sync && rm -- "$marker" && sync -f "$state"
}

# left_over: what was unpacked by one that was killed, and volumes that it has made and not used.
left_over() {
    local one
    for one in "$state"/restoring-????????; do
        [[ ! -d $one ]] || clear_away "$one" || return 1
    done
    have podman || return 0
    while IFS= read -r one; do
        [[ $one == "$arriving" || $one == "$HOMESERVER"-before-restore-* && -z $(content "$one" -print -quit) ]] || continue
        podman volume rm --force "$one" >/dev/null || return 1
    done < <(podman volume ls --quiet 2>/dev/null)
}

arriving=$HOMESERVER-restoring
if [[ -e $marker ]]; then
    force=yes # it was given then, if there was anything to put aside
    ! grep -zqxe made -e emptied "$marker" || homeserver_stopped
    change "put back what a restore that was cut off has put aside" put_back ||
        die "not all of it could be put back; $marker is there until it is" "Mend what it says above, then run this again"
fi
[[ -n $DRY_RUN ]] || left_over || die "what is left of a restore that was cut off cannot be removed" "Mend what it says above, then run this again"

# ---- what is there already ----

now=$(date -u +%Y-%m-%dT%H%M%SZ)
aside=$state/before-restore-$now
volume='' before=$HOMESERVER-before-restore-$now
if [[ -e $backup/homeserver.tar.gz ]]; then
    homeserver_stopped
    ! podman volume exists "$HOMESERVER" || volume=$HOMESERVER
fi
if [[ -z $force && ( -e $state/matrix-agent.db || -n $volume ) ]]; then
    die "$([[ -e $state/matrix-agent.db ]] && printf '%s holds a database' "$state" || printf 'the volume %s holds a homeserver' "$volume") already" \
        "--force puts it aside"
fi

work='' done='' anew=''
take_back() {
    local code=$?
    trap - EXIT
    trap '' INT TERM HUP # half of it back would be worse
    set +e
    exec 2>&"$terminal" >&2 # a signal may have come where a step's words go to the log
    # What counts is the marker itself: a signal may come between it and the next line here.
    if [[ -n $work ]] && [[ -e $marker || -z $done ]]; then
        if [[ ! -e $marker ]] || put_back; then
            printf '  what was there is as it was%s\n' "$anew" >&2
        else
            printf '✗ not all that was there could be put back, and the server does not start so. Mend what it says above, then run this again\n' >&2
        fi
    fi
    [[ ! -d $work ]] || clear_away "$work"
    [[ -z $work || ! -e $backup/homeserver.tar.gz ]] || podman volume rm --force "$arriving" >/dev/null 2>&1
    exit "$code"
}
trap take_back EXIT
trap 'exit 130' INT TERM HUP

# ---- beside ----

# unpack ARCHIVE FOLDER: of the server's own; nothing in it may lead out of it, since what is here is followed.
unpack() {
    local link top
    mkdir -p "$2" && tar -xzf "$1" -C "$2" --no-same-owner --no-same-permissions || return 1
    # Folders first, one by one, since below one without rights nothing is found. The fifth digit is for bits that four leave there.
    find "$2" -type d -exec chmod 00700 {} \; && find "$2" -type f ! -path "$2/etc/*" -exec chmod 00600 {} + &&
        find "$2" -type f -path "$2/etc/*" -exec chmod u-s,g-s,o-t,u=rwX,go= {} + || return 1
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

# shapes: what is to be a folder is one, and what is to be a file; also where it goes.
shapes() {
    local one to
    for one in "$work"/new/{audit,pictures,outgoing,terminal} "$work"/secrets/{etc,state} "$state"/{secrets,workspaces}; do
        [[ ! -e $one || -d $one ]] || { printf '%s is no folder\n' "${one#"$work"/}" && return 1; }
    done
    for one in "$work"/new/audit/* "$work/secrets/etc/.env"; do
        [[ ! -d $one ]] || { printf '%s is a folder\n' "${one#"$work"/}" && return 1; }
    done
    [[ -d $work/secrets/state ]] || return 0
    while IFS= read -r -d '' one; do
        to=$state/secrets/$one one=$work/secrets/state/$one
        [[ ! -e $to ]] || [[ -d $to && -d $one || ! -d $to && ! -d $one ]] ||
            { printf '%s is of another kind than %s\n' "${one#"$work"/}" "$to" && return 1; }
    done < <(find "$work/secrets/state" -mindepth 1 -printf '%P\0')
}

beside() {
    local record
    mkdir "$work/new" || return 1
    [[ ! -e $backup/state.tar.gz ]] || unpack "$backup/state.tar.gz" "$work/new" || return 1
    [[ ! -e $backup/secrets.tar.gz ]] || unpack "$backup/secrets.tar.gz" "$work/secrets" || return 1
    for record in "$backup"/rooms/*.tar.gz; do
        [[ ! -e $record ]] || room "$(basename "$record" .tar.gz)" || return 1
    done
    shapes || return 1
    [[ ! -e $backup/homeserver.tar.gz ]] || homeserver_beside || return 1
    install -m 600 "$backup/matrix-agent.db" "$work/matrix-agent.db"
}
NOTHING="Mend what it says above, or take another backup"
if [[ -z $DRY_RUN ]]; then
    work=$(mktemp -d "$state/restoring-XXXXXXXX") || die "$state cannot be written" "Run this as the server's user"
fi
change "unpack the backup beside what is there" quietly "the backup cannot be unpacked" "$NOTHING" beside

# ---- in its place ----

instance=$(instance_of "$state")

# What is there is looked for as late as this, since whoever reads a database may leave files beside it.
old=() news=() step=() from=() to=()
declare -A is_old=()
leaves() {
    if [[ -z ${is_old[$1]:-} ]] && there "$1"; then is_old["$1"]=yes old+=("$1"); fi
}
# comes STEP FROM TO: what is there goes aside.
comes() {
    leaves "$3"
    step+=("$1") from+=("$2") to+=("$3")
}
bring() {
    local at
    for at in "${!step[@]}"; do
        [[ ${step[at]} != "$1" ]] || move "${from[at]}" "${to[at]}" new || return 1
    done
}

shopt -s nullglob
for one in "$state"/{matrix-agent.db,matrix-agent.db-wal,matrix-agent.db-shm,matrix-agent.db.restored,matrix,audit,pictures,outgoing,terminal} \
    "$state"/secrets/matrix-*-{session.json,store-key}; do
    leaves "$one"
done
for record in "$backup"/rooms/*.json; do
    files=$state/workspaces/$(basename "$record" .json)
    for one in "$files" "$files".{json,ext4}; do leaves "$one"; done
done
packed=("$backup"/rooms/*.tar.gz)

# Where the settings belong: where the program reads them here, or, on a new machine, where they were on the old one.
settings=$(readlink -m -- "$ENV_FILE")
linked='' left=''
was=$(sed -n 's/^settings=//p' "$backup/about" | head -n 1)
if [[ ! -e $settings ]] && ! own_folder "$settings" && [[ $was == /* ]] && own_folder "$(realpath -m -- "$was")/.env" && [[ ! -e $was/.env ]]; then
    settings=$was/.env linked=yes
fi
apart=$state/settings-of-the-backup

if [[ -z $DRY_RUN ]]; then
    for one in audit pictures outgoing terminal; do
        [[ ! -e $work/new/$one ]] || comes files "$work/new/$one" "$state/$one"
    done
    for one in "$work"/workspaces/*; do comes rooms "$one" "$state/workspaces/${one##*/}"; done
    if [[ -d $work/secrets/state ]]; then
        while IFS= read -r -d '' one; do
            comes keys "$work/secrets/state/$one" "$state/secrets/$one"
        done < <(find "$work/secrets/state" ! -type d -printf '%P\0')
    fi
    if [[ -d $work/secrets/etc ]]; then
        fresh='' # where there are settings already, those stay
        [[ -e $settings ]] || fresh=yes
        while IFS= read -r -d '' one; do
            goes=${settings%/*}/$one
            # In a clone there is nothing of it but .env.
            if [[ -n $fresh ]] && ! there "$goes" && { [[ $one == .env ]] || own_folder "$settings"; }; then
                comes keys "$work/secrets/etc/$one" "$goes"
            else
                left=yes
            fi
        done < <(find "$work/secrets/etc" ! -type d -printf '%P\0')
        [[ -z $fresh || -z $linked || -e $ENV_FILE ]] || news+=("$ENV_FILE")
        [[ -z $left ]] || comes keys "$work/secrets/etc" "$apart"
    fi
    : >"$work/restored"
    # The database is last: with it the server takes up the rest.
    # By the empty file beside it the server knows that it comes from a backup (src/store/restored.rs).
    comes database "$work/restored" "$state/matrix-agent.db.restored"
    comes database "$work/matrix-agent.db" "$state/matrix-agent.db"
fi

mark() {
    local one at data kept
    {
        for one in "${old[@]}"; do printf '%s\0' old "$one" "$aside/${one#"$state"/}"; done
        for at in "${!to[@]}"; do printf '%s\0' new "${to[at]}" "$(identity "${from[at]}")"; done
        for one in "${news[@]}"; do printf '%s\0' new "$one" "$settings"; done # a link is known by where it leads
        if [[ -n $volume ]]; then
            podman volume create "$before" >/dev/null && data=$(podman volume inspect --format '{{.Mountpoint}}' "$volume") &&
                kept=$(podman volume inspect --format '{{.Mountpoint}}' "$before") || return 1
            while IFS= read -r -d '' one; do printf '%s\0' old "$data/$one" "$kept/$one"; done < <(content "$volume" -printf '%P\0' | LC_ALL=C sort -z)
            while IFS= read -r -d '' one; do printf '%s\0' new "$data/${one##*/}" "$(identity "$one")"; done < <(content "$arriving" -print0)
            printf '%s\0' emptied "$before" ''
        elif [[ -e $backup/homeserver.tar.gz ]]; then
            printf '%s\0' made "$HOMESERVER" "$(content "$arriving" -print0 | while IFS= read -r -d '' one; do identity "$one"; done | paste -sd ' ')"
        fi
        printf '%s\0' aside "$aside" ''
    } >"$work/marker" && sync -f "$work" && mv -T -- "$work/marker" "$marker" && sync -f "$state" || return 1
    # A server that starts now does not see it, or is seen here.
    ! taken "$state" || { printf 'a server has started meanwhile\n' && return 1; }
}
change "note in $marker what is to be put aside" quietly "it cannot be noted" "Mend what it says above" mark

# A sandbox that still runs has the old files.
sandboxes() { anew=', but for the sandboxes, which are made anew' && remove_sandboxes "$instance" "$state"; }
if [[ -n $instance && -d $backup/rooms ]] && have podman; then
    change "remove the sandboxes, which have the old files" quietly "they cannot be removed" "Mend what it says above" sandboxes
fi

put_aside() {
    local one
    for one in "${old[@]}"; do move "$one" "$aside/${one#"$state"/}" || return 1; done
}
[[ ${#old[@]} -eq 0 ]] || change "put what is in $state aside, in $aside" quietly "it cannot be put aside" "Mend what it says above" put_aside

[[ ! -e $backup/state.tar.gz ]] || change "bring back the audit log, pictures and files" quietly "they cannot be brought back" "Mend what it says above" bring files

homeserver() {
    local data
    podman rm --force --ignore --time 10 "$HOMESERVER" "$HOMESERVER-db" || return 1
    if [[ -n $volume ]]; then pour "$volume" "$before" || return 1; else podman volume create "$HOMESERVER" || return 1; fi
    data=$(podman volume inspect --format '{{.Mountpoint}}' "$HOMESERVER") && pour "$arriving" "$HOMESERVER" &&
        with_ids chown --reference="$data/homeserver.yaml" "$data"
}
[[ ! -e $backup/homeserver.tar.gz ]] || change "bring back the homeserver in the volume $HOMESERVER${volume:+, and put the old one aside in $before}" \
    quietly "the homeserver cannot be brought back" "Mend what it says above" homeserver

[[ ${#packed[@]} -eq 0 ]] || change "bring back the rooms' files (${#packed[@]})" quietly "they cannot be brought back" "Mend what it says above" bring rooms

keys() {
    local one
    bring keys || return 1
    for one in "${news[@]}"; do ln -s "$settings" "$one" || return 1; done
}
[[ ! -e $backup/secrets.tar.gz ]] || change "bring back keys and settings" quietly "they cannot be brought back" "Mend what it says above" keys
[[ -z $left ]] || note "the settings here stay as they are (${settings%/*}); those of the backup that are not among them are in $apart"

# The homeserver's volume, rooms and settings may be on other file systems than the marker.
database() {
    mkdir -p "$state/secrets" "$state/workspaces" && sync && bring database && sync -f "$state" && done=yes && rm -- "$marker" || return 1
    sync -f "$state" || true # without the marker all is in its place, with it the old comes back
}
change "bring back the database" quietly "it cannot be brought back" "Mend what it says above" database
[[ -n $DRY_RUN ]] || note "now start the homeserver, if it came back (scripts/setup-synapse.sh), and the server (systemctl start matrix-agent)"
