# shellcheck shell=bash
# What the scripts share: how they speak, and what they ask of the machine. Sourced, never run.
# Everything here looks first and changes only what is missing, so that a second run does nothing.

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PODMAN_IGNORE_CGROUPSV1_WARNING=1 # doctor tells about old cgroups, once and with the mend
LOGS=${LOGS_DIRECTORY:-$REPO/target} # systemd's for its own
[[ $EUID -ne 0 || -O $REPO && $REPO != /usr/* ]] || LOGS=${LOGS_DIRECTORY:-/var/log/matrix-agent} # root leaves nothing in another's clone or a package
SCRIPTS_LOG=${SCRIPTS_LOG:-$LOGS/scripts.log}
STAGE_STARTED=$SECONDS
STAGE_NAME=
STAGES=()

DRY_RUN= # with `--dry-run`: nothing is changed, and what would be is told

have() { command -v "$1" >/dev/null 2>&1; }
note() { printf '  %s\n' "$*"; }

# die CAUSE MEND: one line, then the end.
die() {
    printf '✗ %s. %s\n' "$1" "$2" >&2
    exit 1
}

# show_help: a script's first comment is its help.
show_help() { sed -n '2,/^[^#]/ s/^# \{0,1\}//p' "$0"; }

# change WHAT COMMAND…: does it and says so, or says that it would.
change() {
    local what=$1
    shift
    if [[ -n $DRY_RUN ]]; then
        note "would: $what"
    else
        note "$what"
        "$@"
    fi
}

clock() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }

# stage NAME: what follows belongs to it; its time is told when the next one begins.
stage() {
    end_stage
    STAGE_NAME=$1
    STAGE_STARTED=$SECONDS
    printf '▸ %s  (at %s)\n' "$1" "$(clock "$SECONDS")"
}

end_stage() {
    [[ -n $STAGE_NAME ]] || return 0
    local took
    took=$(clock $((SECONDS - STAGE_STARTED)))
    STAGES+=("$(printf '%6s  %s' "$took" "$STAGE_NAME")")
    printf '✓ %s  (%s)\n' "$STAGE_NAME" "$took"
    STAGE_NAME=
}

told_stages() { printf '%s\n' "${STAGES[@]}"; }

# quietly CAUSE MEND COMMAND…: runs the command with its words in the log; on failure shows the last of them.
quietly() {
    local cause=$1 mend=$2
    shift 2
    mkdir -p "$(dirname "$SCRIPTS_LOG")"
    if ! "$@" >"$SCRIPTS_LOG" 2>&1 </dev/null; then
        tail -n 15 "$SCRIPTS_LOG" | sed 's/^/    /' >&2
        die "$cause" "$mend (the whole: $SCRIPTS_LOG)"
    fi
}

as_root() {
    if [[ $EUID -eq 0 ]]; then
        "$@"
    elif have sudo; then
        sudo -- "$@"
    else
        die "this needs root, and there is no sudo" "Run the script as root, or install sudo"
    fi
}

check_system() {
    local name="this system"
    # shellcheck disable=SC1091
    [[ -r /etc/os-release ]] && name=$(. /etc/os-release && printf '%s' "${PRETTY_NAME:-$ID}")
    have apt-get || die "$name has no apt-get" "These scripts know Debian 12, 13 and Ubuntu 24.04; elsewhere install podman, gcc and Rust by hand, then: cargo build --profile quick"
    case $name in
        "Debian GNU/Linux 12"* | "Debian GNU/Linux 13"* | "Ubuntu 24.04"*) ;;
        *) note "$name was never tried; Debian 12, 13 and Ubuntu 24.04 were. Going on." ;;
    esac
}

# check_disk DIRECTORY GIGABYTES WHAT-FOR
check_disk() {
    local directory=$1 free
    while [[ ! -d $directory ]]; do directory=$(dirname "$directory"); done
    # A file system that does not tell is nobody's mistake, and with nothing to divide bash would leave this step and go on.
    free=$(df -Pk "$directory" 2>/dev/null | awk 'NR == 2 {print $4}') || return 0
    [[ $free =~ ^[0-9]+$ ]] || return 0
    free=$((free / 1048576))
    ((free >= $2)) || die "$directory has $free GB free, and $3 needs $2" "Free some space there"
}

missing_packages() {
    local package
    for package in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || printf '%s\n' "$package"
    done
}

# install_packages PACKAGE…: Debian packages, only those that are not there.
install_packages() {
    local missing
    mapfile -t missing < <(missing_packages "$@")
    ((${#missing[@]} > 0)) || return 0
    note "installing ${missing[*]}"
    read_package_lists
    quietly "apt-get could not install ${missing[*]}" "Mend what it says above, then try again" \
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends "${missing[@]}"
}

read_package_lists() {
    [[ -z ${PACKAGE_LISTS_READ:-} ]] || return 0
    quietly "the package lists could not be read" "Check the network and /etc/apt/sources.list, then try again" \
        as_root apt-get -q update
    PACKAGE_LISTS_READ=yes
}

unified_cgroups() { [[ $(stat -fc %T /sys/fs/cgroup 2>/dev/null) == cgroup2fs ]]; }

# Podman itself. Builds use the host's network and sandboxes none, so that no network packages are needed.
install_podman() {
    if ! have podman; then
        local runtime=runc # crun does not start containers under the old cgroups
        unified_cgroups && runtime=crun
        install_packages podman "$runtime"
    elif ! unified_cgroups; then
        install_packages runc
    fi
    install_packages uidmap ca-certificates e2fsprogs # rooms' files are ext4 images
}

# The user ids that sandboxes get: rootful, a range from which each has its own (`--userns=auto`); rootless, the user's.
grant_id_range() {
    local owner=containers range=2147483647:2147483648 file
    [[ $EUID -eq 0 ]] || { owner=$(id -un) && range=100000:65536; }
    for file in /etc/subuid /etc/subgid; do
        grep -qs "^$owner:" "$file" && continue
        note "adding a range of user ids for sandboxes to $file"
        as_root sh -c "echo '$owner:$range' >> $file"
    done
}

# The ranges of /etc/subuid and its like, read by bash, whose numbers are exact: an awk may write large ones as 4.29497e+09.
# own_ids FILE: how many ids this user has.
own_ids() {
    local owner first count all=0 name
    name=$(id -un)
    while IFS=: read -r owner first count; do
        [[ ($owner == "$name" || $owner == "$UID") && $first:$count =~ ^[0-9]{1,10}:[0-9]{1,10}$ ]] || continue
        all=$((all + 10#$count))
    done <"$1"
    printf '%d' "$all"
}

# free_ids COUNT FILE: the first of so many ids in a row that nobody has.
free_ids() {
    local first=524288 from count
    while read -r from count; do
        # The ranges come in order, so what lies before this one is free.
        ((first + $1 > from)) || break
        ((from + count <= first)) || first=$((from + count))
    done < <(sed -nE 's/^[^:]*:0*([0-9]{1,10}):0*([0-9]{1,10})$/\1 \2/p' "$2" | sort -n)
    ((first + $1 - 1 <= 4294967294)) && printf '%d' "$first" # one more is no id
}

# Where Podman's own defaults cannot work on this machine, and only there, a file says otherwise.
configure_podman() {
    local file=/etc/containers hard text=
    [[ $EUID -eq 0 ]] || file=${XDG_CONFIG_HOME:-$HOME/.config}/containers
    file+=/containers.conf.d/50-matrix-agent.conf
    hard=$(ulimit -Hn)
    # Rootful Podman wants to raise the limit; rootless takes what there is.
    if [[ $EUID -eq 0 && $hard != unlimited ]] && ! prlimit --nofile=1048576:1048576 true 2>/dev/null; then
        text+="[containers]"$'\n'"default_ulimits = [\"nofile=1024:$hard\", \"nproc=16384:16384\"]"$'\n'
    fi
    unified_cgroups || text+=$'[engine]\nruntime = "runc"\n'
    [[ -n $text && $(cat "$file" 2>/dev/null) != "${text%$'\n'}" ]] || return 0
    note "writing $file: this machine's limits or cgroups are not what Podman expects"
    mkdir -p "$(dirname "$file")"
    printf '%s' "$text" >"$file"
}

check_podman() {
    quietly "podman does not work here" "Mend what it says above; \`podman info\` must answer" podman info
}

rust_wanted() { sed -n 's/^rust-version = "\(.*\)"/\1/p' "$REPO/Cargo.toml"; }

# Tells whether `cargo` and `rustc` are there and new enough.
rust_suffices() {
    local version
    have cargo && version=$(rustc --version 2>/dev/null | awk '{print $2}') && [[ -n $version ]] &&
        [[ $(printf '%s\n' "$(rust_wanted)" "${version%%-*}" | sort -V | head -n 1) == "$(rust_wanted)" ]]
}

# ensure_rust [COMPONENT…]: what is there if it is new enough; else by rustup: the one that is there, Debian's, or the
# one of sh.rustup.rs.
ensure_rust() {
    export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    install_packages gcc libc6-dev
    if ! rust_suffices; then
        if ! have rustup; then
            read_package_lists
            if [[ $(apt-cache policy rustup) == *'Candidate: '[0-9]* ]]; then
                install_packages rustup
            else
                install_packages curl ca-certificates
                quietly "https://sh.rustup.rs could not be fetched" \
                    "Install Rust $(rust_wanted) or newer (https://rustup.rs), so that \`cargo\` is found, then try again" \
                    curl --proto '=https' --tlsv1.2 -sSf -m 120 -o "$REPO/target/rustup-init.sh" https://sh.rustup.rs
                quietly "rustup could not be installed" "Install Rust $(rust_wanted) or newer by hand, then try again" \
                    sh "$REPO/target/rustup-init.sh" -y --no-modify-path --profile minimal --default-toolchain none
            fi
        fi
        note "installing Rust by rustup"
        quietly "rustup could not install a toolchain" \
            "Check that https://static.rust-lang.org is reachable, or install Rust $(rust_wanted) by hand, then try again" \
            rustup toolchain install stable --profile minimal
        quietly "rustup's toolchain could not be chosen" "Run: rustup default stable" rustup default stable
        rust_suffices || die "Rust is $(rustc --version), and this project needs $(rust_wanted)" "Run: rustup update stable"
    fi
    local component
    for component in "$@"; do
        cargo "$component" --version >/dev/null 2>&1 && continue
        quietly "cargo $component is missing" "Run: rustup component add $component" \
            rustup component add "${component/#fmt/rustfmt}"
    done
    note "$(rustc --version)"
}

TOOLS=${XDG_CACHE_HOME:-$HOME/.cache}/matrix-agent-tools

# cargo_tool NAME VERSION: a cargo subcommand, the one that is there or this version from crates.io, kept for later runs.
cargo_tool() {
    cargo "$1" --version >/dev/null 2>&1 && return 0
    note "compiling cargo-$1 $2, once; it takes a minute or two"
    quietly "cargo-$1 could not be installed" "Run: cargo install --locked cargo-$1" \
        cargo install --quiet --debug --locked --root "$TOOLS" "cargo-$1@$2"
}

# python_tool NAME VERSION: a program that PyPI carries as a wheel.
python_tool() {
    have "$1" && return 0
    install_packages python3-venv
    [[ -x $TOOLS/python/bin/pip ]] || quietly "python3 could not make a virtual environment" \
        "Run: apt-get install python3-venv" python3 -m venv "$TOOLS/python"
    quietly "$1 could not be installed" "Check that PyPI is reachable, or install $1 $2 by hand" \
        "$TOOLS/python/bin/pip" install --quiet --only-binary :all: "$1==$2"
    mkdir -p "$TOOLS/bin"
    ln -sf "../python/bin/$1" "$TOOLS/bin/$1"
}

# Synapse's version, here and in the image of setup-synapse.sh; requirements.txt pins it and all that it needs.
synapse_version() { sed -n 's/^matrix-synapse==\([^ ]*\).*/\1/p' "$REPO/scripts/synapse/requirements.txt"; }

# test_synapse: the homeserver that the tests start, in a virtual environment that is made whole or not at all.
test_synapse() {
    local to version
    version=$(synapse_version)
    to=$TOOLS/synapse-$version
    [[ ! -x $to/bin/python ]] || return 0
    note "installing Synapse $version for the tests, once"
    install_packages python3-venv
    rm -rf "$to" "$to.part"
    quietly "python3 could not make a virtual environment" "Run: apt-get install python3-venv" \
        python3 -m venv "$to.part"
    quietly "Synapse $version could not be installed" "Check that PyPI is reachable, then try again" \
        "$to.part/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes --no-deps \
        -r "$REPO/scripts/synapse/requirements.txt"
    mv "$to.part" "$to"
}

# test_element: the client that the tests look through; it is bundled inside the sandbox image, so that comes first.
test_element() { "$REPO/tests/element/run.sh" build; }

ENV_FILE=$REPO/.env

# check_settings: install-service.sh leaves a link to the service's settings.
check_settings() {
    [[ ! -L $ENV_FILE || -r $ENV_FILE ]] ||
        die "$ENV_FILE leads to $(readlink "$ENV_FILE"), which this user cannot read" "Those are the service's settings: use sudo, or remove the link to have settings of your own here"
}

# setting KEY: its value as the program sees it: of the environment, else of .env.
setting() {
    local value
    [[ -z ${!1:-} ]] || { printf '%s' "${!1}" && return 0; }
    [[ -r $ENV_FILE ]] || return 0
    value=$(sed -nE "s/^[[:space:]]*(export[[:space:]]+)?$1[[:space:]]*=[[:space:]]*//p" "$ENV_FILE" | tail -n 1)
    value=${value%$'\r'}
    case $value in
        \"*) value=$(sed -E 's/^"(([^"\\]|\\.)*)".*/\1/; s/\\(["\\$])/\1/g' <<<"$value") ;;
        \'*) value=${value#\'} && value=${value%%\'*} ;;
        *) value=$(sed -E 's/(^|[[:space:]])#.*//; s/[[:space:]]+$//' <<<"$value") ;;
    esac
    printf '%s' "$value"
}

# settle KEY VALUE: writes a setting into .env where it has its place, and makes .env if there is none. Nobody else may
# read that file, and no value stands in a command line.
settle() {
    local part
    if [[ ! -e $ENV_FILE ]]; then
        install -m 600 "$REPO/.env.example" "$ENV_FILE"
    fi
    part=$(mktemp "$ENV_FILE.XXXXXX")
    KEY=$1 VALUE=$2 awk '
        function key(line) { sub(/^[ \t]*(export[ \t]+)?/, "", line); sub(/[ \t]*=.*/, "", line); return line }
        { lines[NR] = $0 }
        key($0) == ENVIRON["KEY"] && /=/ { typed = NR }
        key(substr($0, 2)) == ENVIRON["KEY"] && /^#.*=/ { shown = NR }
        END {
            place = typed ? typed : shown ? shown : NR + 1
            lines[place] = ENVIRON["KEY"] " = " ENVIRON["VALUE"]
            for (i = 1; i <= (place > NR ? place : NR); i++) print lines[i]
        }' "$ENV_FILE" >"$part"
    # A link stays one, and who owns the file stays its owner.
    cat "$part" >"$ENV_FILE"
    rm -f "$part"
    chmod 600 "$ENV_FILE"
}

# What scripts/install-service.sh writes into the settings for the service, and scripts/uninstall.sh takes out again.
OWN_PODMAN=/run/matrix-agent-podman/podman.sock

# events_of UNIT: where the service of this unit has IPC_BASE_DIR; the unit alone says so.
events_of() { [[ ! -r $1 ]] || sed -nE 's/^Environment=(.* )?IPC_BASE_DIR=([^ ]*).*/\2/p' "$1" | sed "s|^%t/|${XDG_RUNTIME_DIR:-/run/user/$UID}/|"; }

# settle_events UNIT: writes that into the settings, so that commands which are typed beside the service look where it does. What
# the operator has set stays.
settle_events() {
    local there
    there=$(events_of "$1")
    [[ -z $there || -n $(unset IPC_BASE_DIR && setting IPC_BASE_DIR) ]] ||
        change "write IPC_BASE_DIR into $ENV_FILE" settle IPC_BASE_DIR "$there"
}

# unsettle_service UNIT: takes both out of the settings that stay when the service goes: nothing listens there, nothing makes that folder.
unsettle_service() {
    local key own
    for key in PODMAN_SOCKET IPC_BASE_DIR; do
        own=$OWN_PODMAN
        [[ $key != IPC_BASE_DIR ]] || own=$(events_of "$1")
        [[ -z $own || $(unset "$key" && setting "$key") != "$own" ]] || change "take $key out of $ENV_FILE" settle "$key" ''
    done
}

# link_settings: leaves a link to this clone's .env where the program looks for it, so that its commands work from
# everywhere. A file of one's own there stays.
link_settings() {
    local folder=${XDG_CONFIG_HOME:-$HOME/.config}/matrix-agent
    if [[ ! -e $folder/.env || -L $folder/.env ]]; then
        (umask 077 && mkdir -p "$folder")
        ln -sfn "$ENV_FILE" "$folder/.env"
    elif [[ ! $folder/.env -ef $ENV_FILE ]]; then
        note "$folder/.env is another file: the commands read that one, this script $ENV_FILE"
    fi
}

# A password that nobody has to type.
new_password() { head -c 18 /dev/urandom | base64 | tr '+/' '-_'; }

# tell_login HOMESERVER ADMINISTRATOR BOT: how a client reaches the homeserver.
tell_login() {
    local port=${1##*:}
    cat <<TOLD

Log in with Element (or any Matrix client):
  homeserver  $1
  user        $2
  password    MATRIX_ADMIN_PASSWORD in .env
Then invite $3 to a room, and write what is to be done.
TOLD
    [[ $1 == http://127.0.0.1:* ]] || return 0
    cat <<TOLD
It listens on this machine alone. From elsewhere:
  a tunnel    ssh -L $port:127.0.0.1:$port $(id -un)@$(hostname), then the same address there
  a proxy     one that speaks TLS, for phones: with Caddy the two words \`reverse_proxy 127.0.0.1:$port\` under your domain
  a network   that you trust: scripts/setup-synapse.sh --listen ADDRESS (nothing is encrypted on the way)
TOLD
}

# state_dir: where the server keeps its state, as the program has it.
state_dir() {
    local own
    own=$(setting STATE_DIR)
    if [[ -n $own ]]; then
        printf '%s' "$own"
    elif [[ $EUID -eq 0 ]]; then
        printf /var/lib/matrix-agent
    else
        printf '%s' "${XDG_STATE_HOME:-$HOME/.local/state}/matrix-agent"
    fi
}

# check_restored STATE: ends where a restore has not come to its end, since its volumes and files are about to be put back.
check_restored() {
    [[ ! -e $1/restoring ]] || die "a restore in $1 was cut off, or is under way" "Run scripts/restore.sh again: it puts back what was there, and begins anew"
}

# help_files SHARE: what shells complete, and the manual pages, below a share directory, as far as they are there.
help_files() {
    local file
    for file in "$1/bash-completion/completions/matrix-agent" "$1/zsh/site-functions/_matrix-agent" \
        "$1/fish/vendor_completions.d/matrix-agent.fish" "$1"/man/man1/matrix-agent{,-*}.1; do
        [[ ! -e $file ]] || printf '%s\n' "$file"
    done
}

# state_fault DIRECTORY: why it cannot be removed as a server's state, which STATE_DIR only says; nothing if it can be.
state_fault() {
    local real home
    real=$(realpath -m -- "$1")
    if [[ $real =~ ^/([^/]*|var/[^/]*|(usr|etc|boot|proc|sys|dev)/.*)$ ]]; then
        printf 'is a folder of the system'
        return
    fi
    while IFS= read -r home; do
        [[ $home/ != "$real"/* ]] || { printf 'holds the home %s' "$home" && return; }
    done < <(getent passwd | cut -d: -f6 && printf '%s\n' "$HOME")
    [[ $REPO/ != "$real"/* ]] || { printf 'holds these scripts' && return; }
    [[ -f $real/matrix-agent.db || -f $real/lock ]] || printf 'has neither the database nor the lock of a server'
}

# taken STATE: whether a server works with this state directory.
taken() { [[ -e $1/lock ]] && ! flock --nonblock "$1/lock" true; }

# database_uri FILE OPTIONS: a database for sqlite3 that must be there: of a bare path it makes an empty one, and in one of its
# own addresses `?`, `#` and `%` mean something.
database_uri() {
    local path=$1
    [[ $path == /* ]] || path=$PWD/$path
    path=${path//%/%25} path=${path//\?/%3f}
    printf 'file://%s?%s' "${path//\#/%23}" "$2"
}

# database_fault FILE: why a copy of the database is of no use; nothing if it is whole and a server's. It is not changed.
database_fault() {
    local address lost
    [[ -f $1 && -s $1 ]] || { printf 'is missing or empty' && return; }
    address=$(database_uri "$1" 'mode=ro&immutable=1')
    [[ $(sqlite3 "$address" "PRAGMA integrity_check" 2>/dev/null) == ok ]] || { printf 'is damaged' && return; }
    # The tables of its first version (src/store/schema.rs).
    lost=$(sqlite3 "$address" "WITH ours (name) AS (VALUES ('meta'), ('inbound'), ('positions'), ('turns'), ('messages'), ('contexts'),
        ('calls'), ('outbox'), ('usage')) SELECT group_concat(name, ', ') FROM ours WHERE name NOT IN (SELECT name FROM sqlite_master)") ||
        lost='all of them'
    [[ -z $lost ]] || printf 'is no database of matrix-agent (it lacks the tables %s)' "$lost"
}

# sums FOLDER: the list of a backup: a line for each file in it.
sums() { (cd "$1" && find . -type f ! -path ./SHA256SUMS -printf '%P\0' | LC_ALL=C sort -z | xargs -0r sha256sum --); }

# own_folder FILE: whether the file of settings lies in a folder that has nothing but settings; a clone may have the same name.
own_folder() { [[ ${1%/*} == */matrix-agent && ! -e ${1%/*}/scripts/lib.sh ]]; }

# instance_of STATE: the server's name, which its containers and volumes bear; another server's stay alone.
instance_of() {
    local name how=mode=ro
    # Where nothing waits to be read into the database, reading it leaves nothing beside it.
    [[ -s $1/matrix-agent.db-wal ]] || how='mode=ro&immutable=1'
    name=$(sqlite3 "$(database_uri "$1/matrix-agent.db" "$how")" "SELECT value FROM meta WHERE key = 'instance'" 2>/dev/null || true)
    [[ ! $name =~ ^[0-9a-f]+$ ]] || printf '%s' "$name"
}

# take_out FILE: removes it, and the folders that were made for it; an empty one of the system's stays.
take_out() {
    local folder
    rm -rf -- "$1"
    folder=$(dirname -- "$1")
    case $folder in
        *.service.d | */containers/systemd | */man/man1)
            rmdir --ignore-fail-on-non-empty -- "$folder" 2>/dev/null || true ;;
        */bash-completion/completions | */zsh/site-functions | */fish/vendor_completions.d)
            rmdir --ignore-fail-on-non-empty -- "$folder" "${folder%/*}" 2>/dev/null || true ;;
    esac
}

# inspected FORMAT: of the containers that are listed on standard input; one may go away meanwhile.
inspected() { xargs -r podman container inspect --format "$1" 2>/dev/null || true; }

# run_by RUNTIME: the containers that this program runs.
run_by() {
    podman ps --all --quiet | inspected '{{.ID}} {{.OCIRuntime}}' |
        RUNTIME=$1 awk 'substr($0, index($0, " ") + 1) == ENVIRON["RUNTIME"] { print $1 }'
}
remove_run_by() { run_by "$1" | xargs -r podman rm --force --ignore --time 2 >/dev/null; }

# remove_sandboxes INSTANCE STATE: the containers; what is in /workspace and at home is not in them. A copy of the database elsewhere
# has the same name, so those count that have something of this state directory.
remove_sandboxes() {
    # shellcheck disable=SC2016 # Podman's variables
    podman ps --all --quiet --filter "label=matrix-agent.instance=$1" |
        inspected '{{$id := .ID}}{{range .Mounts}}{{$id}} {{.Source}}{{println}}{{end}}' |
        STATE=$(realpath -m -- "$2")/ awk 'index(substr($0, index($0, " ") + 1), ENVIRON["STATE"]) == 1 && !seen[$1]++ { print $1 }' |
        xargs -r podman rm --force --ignore --time 2 >/dev/null
}

# Runs a command where the rooms' user ids exist: for rootless Podman, in its user namespace.
with_ids() {
    if [[ $EUID -eq 0 ]]; then "$@"; else podman unshare "$@"; fi
}

# clear_away PATH: what is in it may belong to ids that this user has only in Podman's namespace.
clear_away() { rm -rf -- "$1" 2>/dev/null || with_ids rm -rf -- "$1"; }
