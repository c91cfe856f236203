#!/usr/bin/env bash
# Makes a service of what quickstart has shown to work: the program, its units and its scripts go where only root writes,
# the settings to /etc/matrix-agent/.env, and systemd keeps it running. Run it again at any time: what is there stays, and
# the service is started anew only if something has changed.
#   sudo ./scripts/install-service.sh [--binary PATH] [--rootless] [--root DIRECTORY] [--dry-run]
#     --binary    install this program instead of building one
#     --rootless  a service of yours instead of root's, with rootless Podman: without sudo, in ~/.config/systemd/user
#     --root      put the files below this directory, as for another machine's disk, and start nothing
#     --dry-run   only say what would be done
# It needs .env in this clone, which it moves and leaves a link to. A homeserver that scripts/setup-synapse.sh has made becomes
# synapse.service, with its container's volume. Two timers come along: matrix-agent-backup (each night, into
# /var/backups/matrix-agent) and matrix-agent-images (each week, Debian's newest packages).
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$REPO"
umask 022 # the service reads what root writes here; what is secret has its own mode

binary='' rootless='' root=''
while (($# > 0)); do
    case $1 in
        --binary | --root) (($# > 1)) || die "$1 needs a value" "scripts/install-service.sh --help lists the options" ;;&
        --binary) binary=$2 && shift ;;
        --root) root=${2%/} && shift ;;
        --rootless) rootless=yes ;;
        --dry-run) DRY_RUN=yes ;;
        -h | --help) show_help && exit 0 ;;
        *) die "$1 is not known" "scripts/install-service.sh --help lists the options" ;;
    esac
    shift
done
if [[ -z $DRY_RUN && -z $root && -z $rootless && $EUID -ne 0 ]]; then
    die "this needs root" "Run: sudo scripts/install-service.sh (or, for a service of your own, --rootless)"
fi
[[ -z $rootless || $EUID -ne 0 ]] || die "--rootless is for users" "Run it as the user who is to have the service, without sudo"
[[ -z $root || -d $root ]] || die "--root $root is no directory" "Make it first"
[[ -n $root || -n $DRY_RUN || -d /run/systemd/system ]] ||
    die "systemd does not run here" "Let scripts/quickstart.sh start the server, or your own init: /usr/local/bin/matrix-agent run"

# ---- where things go ----

if [[ -n $rootless ]]; then
    etc=$root${XDG_CONFIG_HOME:-$HOME/.config}/matrix-agent
    units=$root${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user
    program=$root$HOME/.local/bin/matrix-agent
    share=$root${XDG_DATA_HOME:-$HOME/.local/share}
    library=$root${XDG_DATA_HOME:-$HOME/.local/share}/matrix-agent
    quadlets=$root${XDG_CONFIG_HOME:-$HOME/.config}/containers/systemd
    state=${XDG_STATE_HOME:-$HOME/.local/state}/matrix-agent
    control=(systemctl --user)
else
    etc=$root/etc/matrix-agent
    units=$root/etc/systemd/system
    program=$root/usr/local/bin/matrix-agent
    share=$root/usr/local/share
    library=$root/usr/local/lib/matrix-agent
    quadlets=$root/etc/containers/systemd
    state=/var/lib/matrix-agent
    control=(systemctl)
fi
if [[ -z $root && -z $DRY_RUN ]]; then
    "${control[@]}" show-environment >/dev/null 2>&1 ||
        die "${control[*]} reaches no systemd" "Log in as this user (not by su or sudo); on a small system also: apt-get install dbus-user-session"
fi

# place FILE TO MODE: a file that is there whole or not at all, unless it is the same already.
place() {
    local from=$1 to=$2 mode=$3
    if cmp -s "$from" "$to" && [[ $(stat -c %a "$to") == "$mode" ]]; then
        return 0
    fi
    change "write $to" put "$from" "$to" "$mode"
}
put() {
    mkdir -p "$(dirname "$2")"
    install -m "$3" "$1" "$2.new" && mv -f "$2.new" "$2"
}

# place_text TO MODE: the same for a text on standard input.
place_text() {
    local text
    text=$(mktemp)
    cat >"$text"
    place "$text" "$1" "$2"
    rm -f "$text"
}

# ---- the settings ----

SETTINGS=$etc/.env
if [[ $ENV_FILE -ef $SETTINGS ]]; then
    : # the link of an earlier run
elif [[ ! -e $ENV_FILE ]]; then
    [[ ! -e $SETTINGS ]] || ENV_FILE=$SETTINGS
    [[ -e $ENV_FILE ]] || die "there are no settings: $ENV_FILE is missing" "Copy .env.example to .env and fill it in, or run scripts/quickstart.sh"
fi
copied=$(mktemp -d)
trap 'rm -rf "$copied"' EXIT
given=$ENV_FILE
# one_of_two: there are not two of them, of which one would be lost.
one_of_two() {
    [[ ! -e $SETTINGS ]] || cmp -s "$ENV_FILE" "$SETTINGS" ||
        die "$given and $SETTINGS are both there and differ" "Remove the one that does not count (the service reads $SETTINGS)"
}
[[ -n $root ]] || one_of_two

# ---- the program ----

# as_owner FILE COMMAND…: runs it as whoever owns the file: root needs no compiler.
as_owner() {
    local owner
    owner=$(stat -c %U "$1")
    shift
    if [[ $EUID -ne 0 || $owner == root ]]; then
        "$@"
    else
        runuser -u "$owner" -- env "HOME=$(getent passwd "$owner" | cut -d: -f6)" "$@"
    fi
}

stage "the program"
if [[ -z $binary ]]; then
    binary=target/quick/matrix-agent
    # shellcheck disable=SC2016 # the owner's home
    build=(bash -c 'PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH exec cargo build --locked --profile quick --bin matrix-agent </dev/null')
    built=$REPO
    [[ ! -d target ]] || built=$REPO/target # quickstart may have built as root
    change "build it, as $(stat -c %U "$built")" as_owner "$built" "${build[@]}" ||
        die "the program does not build" "Mend what the compiler says above, or run scripts/quickstart.sh first, which installs Rust; --binary takes one that is built"
fi
if [[ -x $binary ]]; then
    # The service has none of this shell's variables, so they must not hide what is missing.
    validate() { env -i "PATH=$PATH" "HOME=$HOME" "STATE_DIR=$root$state" "$binary" --env-file "$ENV_FILE" config --for run; }
    shown=$(validate) || die "the settings do not suffice for a server" "Mend in $ENV_FILE what it says above"
    in_effect() { sed -nE "s/^$1 +=[[:space:]]*([^[:space:]#]*).*/\1/p" <<<"$shown"; }
    note "$ENV_FILE suffices"
    own=$(unset STATE_DIR && setting STATE_DIR)
    [[ -z $own || ${own%/} == "$state" ]] || die "STATE_DIR is $own, and the service has its state in $state" \
        "Stop the server, move that directory there, and take STATE_DIR out of $ENV_FILE"
elif [[ -z $DRY_RUN ]]; then
    die "$binary is no program" "Give the path of matrix-agent"
else
    note "$binary is not there: the settings cannot be looked at"
    in_effect() { setting "$1"; }
fi

# A runtime that is chosen needs a Podman of its own, which the server's unit has too few rights to start; one that PODMAN_SOCKET
# names already is the operator's.
case $rootless$(in_effect PODMAN_SOCKET) in
    '' | "$OWN_PODMAN") runtime=$(in_effect SANDBOX_RUNTIME) ;;
    *) runtime='' ;;
esac
[[ -z $runtime || -n $root || -n $DRY_RUN ]] || have "$runtime" ||
    die "SANDBOX_RUNTIME is $runtime, and that is not installed" "Install it (docs/runtimes.md), then run this script again"

# settle_service: what the service needs in its settings.
settle_service() {
    if [[ -n $runtime && -z $(in_effect PODMAN_SOCKET) ]]; then
        change "write PODMAN_SOCKET into $ENV_FILE" settle PODMAN_SOCKET "$OWN_PODMAN"
    elif [[ -z $runtime && $(in_effect PODMAN_SOCKET) == "$OWN_PODMAN" ]]; then
        change "take PODMAN_SOCKET out of $ENV_FILE" settle PODMAN_SOCKET ''
    fi
    settle_events "systemd/${rootless:+user/}matrix-agent.service"
}
# Those of another machine are written in a copy: no service of this one uses what this clone has.
if [[ -n $root && ! $ENV_FILE -ef $SETTINGS ]]; then
    install -m 600 "$ENV_FILE" "$copied/.env"
    ENV_FILE=$copied/.env
    DRY_RUN='' settle_service >/dev/null
    one_of_two
fi

# ---- what the machine needs ----

stage "Podman and the sandbox image"
if [[ -n $root ]]; then
    note "not looked at for $root"
elif [[ -n $DRY_RUN ]]; then
    have podman || note "would: install podman"
else
    install_podman
    grant_id_range
    configure_podman
    check_podman
    install_packages sqlite3 # for backups
fi
image=$(setting SANDBOX_IMAGE)
if [[ -n $root ]]; then
    :
elif [[ -z $image || $image == matrix-agent-sandbox:latest ]]; then
    scripts/build-image.sh ${DRY_RUN:+--dry-run}
else
    note "SANDBOX_IMAGE is yours: $image"
fi

# ---- the files ----

stage "the files"
[[ ! -x $binary ]] || place "$binary" "$program" 755
# What the timers run and what the images are made of, so that root runs nothing that somebody else can change.
tree=$(mktemp -d)
told=$(mktemp -d)
trap 'rm -rf "$tree" "$told" "$copied"' EXIT
find Containerfile .containerignore .env.example Cargo.toml hooks sandbox scripts systemd docs/operating.md \
    -path sandbox/sandboxd -prune -o -type f ! -name '*.pyc' -print0 | tar -c --null --no-recursion -T - | tar -x -C "$tree" --no-same-owner
ln -s "${SETTINGS#"$root"}" "$tree/.env"
chmod -R u=rwX,go=rX "$tree"
if ! diff -rq --no-dereference -x target "$tree" "$library" >/dev/null 2>&1; then
    replace() { mkdir -p "$(dirname "$library")" && rm -rf "$library" && cp -R "$tree" "$library"; }
    change "write $library" replace
fi

# What shells complete, and the manual pages: the program writes them itself.
if [[ -x $binary ]]; then
    mkdir -p "$told"/{bash-completion/completions,zsh/site-functions,fish/vendor_completions.d,man/man1}
    "$binary" completions bash >"$told/bash-completion/completions/matrix-agent"
    "$binary" completions zsh >"$told/zsh/site-functions/_matrix-agent"
    "$binary" completions fish >"$told/fish/vendor_completions.d/matrix-agent.fish"
    "$binary" man "$told/man/man1" >/dev/null
    chmod -R u=rwX,go=rX "$told"
    digests() { help_files "$1" | sed "s|^$1/||" | (cd "$1" && xargs -r sha256sum); }
    if [[ ! -d $share ]] || [[ $(digests "$told") != "$(digests "$share")" ]]; then
        tell() {
            help_files "$share" | xargs -r -d '\n' rm -f --
            mkdir -p "$share"
            cp -R "$told"/. "$share"
        }
        change "write what shells complete, and the manual pages, below $share" tell
    fi
fi

[[ -n $DRY_RUN || -d $etc ]] || install -d -m 700 "$etc"
[[ $ENV_FILE == "$copied"/* ]] || settle_service
if [[ ! $ENV_FILE -ef $SETTINGS ]]; then
    place "$ENV_FILE" "$SETTINGS" 600
    leave_link() { rm -f "$ENV_FILE" && ln -s "$SETTINGS" "$ENV_FILE"; }
    [[ -n $root ]] || change "leave a link to it in $ENV_FILE" leave_link
fi

branch=$(as_owner "$REPO" git -C "$REPO" symbolic-ref --quiet --short HEAD 2>/dev/null || true)
if [[ -n $branch ]]; then
    printf 'UPDATE_SOURCE=%s\nUPDATE_BRANCH=%s\nUPDATE_PROGRAM=%s\nUPDATE_MANAGER=%s\n' \
        "$REPO" "$branch" "${program#"$root"}" "$([[ -n $rootless ]] && echo user || echo system)" | place_text "$etc/update.env" 644
else
    note "this clone is on no branch, so it is not noted where updates come from"
fi

# place_unit NAME: a unit; those of users are started by another target, and have no rights that could be taken away.
place_unit() {
    if [[ -z $rootless ]]; then
        place "systemd/$1" "$units/$1" 644
    elif [[ -e systemd/user/$1 ]]; then
        place "systemd/user/$1" "$units/$1" 644
    else
        sed "s|^WantedBy=multi-user.target|WantedBy=default.target|; s|/usr/local/lib/matrix-agent|$library|g; /^RequiresMountsFor=\|^Environment=HOME=\|^Protect/d" \
            "systemd/$1" | place_text "$units/$1" 644
    fi
}
started=(matrix-agent.service matrix-agent-backup.timer matrix-agent-images.timer matrix-agent-redeploy.path)
for unit in matrix-agent.service matrix-agent-{backup,images}.{service,timer} matrix-agent-redeploy.{service,path}; do place_unit "$unit"; done
if [[ -n $runtime ]]; then
    for unit in matrix-agent-podman.{socket,service}; do place_unit "$unit"; done
    started=(matrix-agent-podman.socket "${started[@]}")
    [[ $runtime != runsc ]] || runtime=${library#"$root"}/scripts/gvisor/runsc
    printf 'RUNTIME=%s\n' "$runtime" | place_text "$etc/podman.env" 644
elif [[ -e $units/matrix-agent-podman.socket ]]; then
    take_away() {
        "${control[@]}" ${root:+--root "$root"} --quiet disable matrix-agent-podman.socket
        [[ -n $root ]] || "${control[@]}" stop matrix-agent-podman.{socket,service}
        rm -f "$units"/matrix-agent-podman.{socket,service} "$etc/podman.env"
    }
    change "take matrix-agent-podman away" take_away
fi
# Where the server and whoever replaces its program leave each other word; it says that updates are set up.
if [[ -n $branch && ! -d $root$state/redeploy ]]; then
    change "make $state/redeploy" install -d -m 700 "$root$state" "$root$state/redeploy"
fi
# What this script installs is what serves, and no longer what an update has brought.
[[ ! -e $root$state/redeploy/installed.json ]] || change "forget which commit the last update has brought" rm -f "$root$state/redeploy/installed.json"

# A homeserver of setup-synapse.sh's becomes a service, too. Restarting it does not restart the server, which waits for it.
quadlet=
case $(in_effect MATRIX_HOMESERVER) in
    http://127.0.0.1:* | http://localhost:* | "http://$(setting VPS_IP):"*)
        if [[ -z $root ]] && have podman && podman volume exists matrix-agent-synapse; then
            version=$(podman version --format '{{.Client.Version}}')
            if [[ $(printf '4.9\n%s\n' "$version" | sort -V | head -n 1) == 4.9 ]]; then
                quadlet=$quadlets/synapse.container
                place systemd/synapse.container "$quadlet" 644
            else
                place_unit synapse.service
                started=(synapse.service "${started[@]}")
            fi
            data=$(podman volume inspect --format '{{.Mountpoint}}' matrix-agent-synapse)
            if with_ids test -d "$data/postgres"; then
                place_unit synapse-db.service
                started=(synapse-db.service "${started[@]}")
                printf '[Unit]\nRequires=synapse-db.service\nAfter=synapse-db.service\n' | place_text "$units/synapse.service.d/10-database.conf" 644
            fi
            printf '[Unit]\nWants=synapse.service\nAfter=synapse.service\n' | place_text "$units/matrix-agent.service.d/10-synapse.conf" 644
            printf '[Service]\nExecStart=%s/scripts/setup-synapse.sh --fresh\n' "$library" |
                place_text "$units/matrix-agent-images.service.d/10-synapse.conf" 644
        else
            note "there is no homeserver of scripts/setup-synapse.sh here: none becomes a service"
        fi
        ;;
esac

# ---- the start ----

stage "the service"
if [[ -n $root ]]; then
    change "have them started at boot" systemctl --quiet --root "$root" enable "${started[@]}"
    end_stage
    exit 0
fi
if [[ -n $rootless ]]; then
    # So that the service runs without a login, and every room can have 65,536 user ids of its own.
    [[ -e /var/lib/systemd/linger/$(id -un) ]] || change "let your services run while you are not logged in" as_root loginctl enable-linger "$(id -un)"
    for kind in uid gid; do
        if (($(own_ids "/etc/sub$kind") < 16777216)); then
            first=$(free_ids 16777216 "/etc/sub$kind") ||
                die "/etc/sub$kind has no 16,777,216 ids in a row that nobody has" "Take a range out of it that nobody needs, then run this script again"
            change "add 16,777,216 ids to /etc/sub$kind" as_root usermod "--add-sub${kind}s" "$first-$((first + 16777215))" "$(id -un)"
            migrate=yes
        fi
    done
    [[ -z ${migrate:-} ]] || change "have Podman take them" podman system migrate
fi

# Only one server works with a state directory: quickstart's gives way, anybody else's is not ended.
give_way() {
    local pid
    taken "$state" || return 0
    pid=$(<"$state/lock")
    [[ -f $state/quickstart ]] || die "process $pid works with $state" "Stop it, then run this script again"
    kill -TERM "$pid"
    timeout 60 flock "$state/lock" rm -f "$state/quickstart" || die "quickstart's server (process $pid) does not end" "Stop it, then run this script again"
}
if ! "${control[@]}" --quiet is-active matrix-agent.service && taken "$state"; then
    change "stop the server that runs without systemd (process $(<"$state/lock"))" give_way
fi

change "have systemd read its units" "${control[@]}" daemon-reload
change "have it start them at boot" "${control[@]}" --quiet enable podman.socket "${started[@]}"

# up_to_date UNIT FILE…: whether it has run since before none of these files changed.
up_to_date() {
    local unit=$1 since file
    shift
    "${control[@]}" --quiet is-active "$unit" || return 1
    since=$(date -d "$("${control[@]}" show --property ActiveEnterTimestamp --value "$unit")" +%s)
    for file in "$@"; do
        [[ ! -e $file || $(stat -L -c %Y "$file") -le $since ]] || return 1
    done
}
# run_unit UNIT FILE…: starts it, anew if one of the files has changed.
run_unit() {
    local unit=$1
    if up_to_date "$@"; then
        note "$unit runs"
    else
        change "start $unit" "${control[@]}" restart "$unit" || {
            journalctl ${rootless:+--user} --quiet --no-pager --lines 15 --output cat --unit "$unit" >&2
            die "$unit does not start" "Mend what it says above (\`journalctl -u $unit\` has it all), then run this script again"
        }
    fi
}
if [[ " ${started[*]} " == *" synapse-db.service "* ]]; then
    run_unit synapse-db.service "$units/synapse-db.service"
fi
if [[ -n $quadlet || " ${started[*]} " == *" synapse.service "* ]]; then
    run_unit synapse.service "$units/synapse.service" "${quadlet:-/nowhere}"
fi
if [[ -n $runtime ]] && ! up_to_date matrix-agent-podman.socket "$units"/matrix-agent-podman.{socket,service} "$etc/podman.env"; then
    # The sandboxes live on meanwhile.
    change "end the Podman that runs them" "${control[@]}" stop matrix-agent-podman.{socket,service}
    run_unit matrix-agent-podman.socket "$units/matrix-agent-podman.socket"
fi
run_unit matrix-agent.service "$program" "$units/matrix-agent.service" "$SETTINGS" "$etc/matrix-agent.toml"
change "start its timers" "${control[@]}" start matrix-agent-{backup,images}.timer matrix-agent-redeploy.path
end_stage
[[ -z $DRY_RUN ]] || exit 0
cat <<TOLD

It runs. Its log:   journalctl ${rootless:+--user }-u matrix-agent -f
Its settings:       $SETTINGS, then: ${control[*]} restart matrix-agent
Its state:          $state; what it needs: matrix-agent doctor
To update it:       scripts/deploy.sh. More: docs/operating.md
TOLD
