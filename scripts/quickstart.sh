#!/usr/bin/env bash
# From a fresh Debian 12, 13 or Ubuntu 24.04 to an agent in a Matrix room: installs what is missing, builds the program and
# the sandbox image, starts a homeserver and the server, shows one real job in a room, and says how to log in. Run it again
# at any time: what is there stays as it is, and a server of an older build or older settings is started anew.
#   ./scripts/quickstart.sh [--listen ADDRESS] [--port PORT] [--postgres] [--dry-run]
#     --listen, --port, --postgres   for the homeserver: setup-synapse.sh --help tells
#     --dry-run                      only say what would be done
# The first time takes 13 to 17 minutes on two processors, nearly all of it the program's build.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$REPO"
PROGRAM=target/quick/matrix-agent

homeserver=()
while (($# > 0)); do
    case $1 in
        --listen | --port) (($# > 1)) || die "$1 needs a value" "scripts/quickstart.sh --help lists the options" ;;&
        --listen | --port) homeserver+=("$1" "$2") && shift ;;
        --postgres) homeserver+=("$1") ;;
        --dry-run) DRY_RUN=yes ;;
        -h | --help) show_help && exit 0 ;;
        *) die "$1 is not known" "scripts/quickstart.sh --help lists the options" ;;
    esac
    shift
done

# The homeserver is ours unless the settings name another.
ours() {
    case $(setting MATRIX_HOMESERVER) in
        "" | http://127.0.0.1:* | http://localhost:* | "http://$(setting VPS_IP):"*) ;;
        *) note "the homeserver is yours: $(setting MATRIX_HOMESERVER)" && return 1 ;;
    esac
}

check_system
check_settings
if [[ -n $DRY_RUN ]]; then
    have podman || note "would: install Podman"
    rust_suffices || note "would: install Rust"
    note "would: build $PROGRAM, unless it is up to date"
    scripts/build-image.sh --dry-run
    ! ours || scripts/setup-synapse.sh "${homeserver[@]}" --dry-run
    note "would: start the server, or start it anew if it is an older build or has older settings, and show a job in a room"
    exit 0
fi
[[ -x $PROGRAM ]] || note "The first time takes a quarter of an hour on two processors, since the program is built from its sources; then seconds."

stage "Podman"
[[ -x $PROGRAM ]] || check_disk "$REPO" 5 "the build"
install_podman
grant_id_range
configure_podman
check_podman
note "$(podman --version)"

stage "Rust"
# shellcheck disable=SC2119 # no components wanted
ensure_rust

stage "the program, and meanwhile the sandbox image"
scripts/base-image.sh # which may ask for a password
image_log=$(mktemp)
set -m # a process group of its own, so that it ends as a whole
SCRIPTS_LOG=$LOGS/image.log scripts/build-image.sh >"$image_log" 2>&1 </dev/null &
image=$!
set +m
trap 'kill -- "-$image" 2>/dev/null || true; rm -f "$image_log"' EXIT
cargo build --locked --profile quick --bin matrix-agent </dev/null ||
    die "the program does not build" "Mend what the compiler says above; if crates could not be fetched, check the network"

stage "the rest of the sandbox image"
tail -f --pid "$image" -n +1 "$image_log" # what it has said so far, and what it still says
wait "$image"
trap - EXIT
rm -f "$image_log"

stage "the homeserver"
! ours || LOGIN_IS_TOLD=later scripts/setup-synapse.sh "${homeserver[@]}"

stage "the server"
link_settings
program() { "$PROGRAM" --env-file "$ENV_FILE" "$@"; }
program config >/dev/null || die "the settings have mistakes" "Mend in .env what it says above"
in_effect() { program config | sed -nE "s/^$1 +=[[:space:]]*([^[:space:]]*).*/\1/p"; }
state=$(in_effect STATE_DIR)
log=$state/server.log
mode=()
{ program config --for run || program config --for chat; } >/dev/null 2>&1 || mode=(--demo-model)
inputs=$({ cat "$PROGRAM" "$ENV_FILE" && env | grep -E '^(LLM|MATRIX|SANDBOX|STATE|IPC|PODMAN)_' | sort; } | sha256sum)
serves() { [[ -S $state/control.sock ]] && ! flock --nonblock "$state/lock" true; }
if serves; then
    pid=$(<"$state/lock")
    if [[ ! -f $state/quickstart ]]; then
        note "runs already, as process $pid, started by something else than this script"
    elif [[ $(<"$state/quickstart") != "$pid $inputs" ]]; then
        note "the program or the settings have changed: starting it anew"
        kill -TERM "$pid"
        for ((i = 0; i < 300; i++)); do serves || break; sleep 0.1; done
    else
        note "runs as process $pid"
    fi
fi
if ! serves; then
    rm -f "$state/quickstart"
    (umask 077 && mkdir -p "$state" && : >"$state/server.out")
    # It listens before its accounts have logged in, and says in its log when each has tried to.
    readies() { grep -c "the server is ready" "$log" 2>/dev/null || true; }
    before=$(readies)
    ready() { serves && [[ $(readies) != "$before" ]]; }
    setsid "$PROGRAM" --env-file "$ENV_FILE" run --log-file "$log" "${mode[@]}" </dev/null >"$state/server.out" 2>&1 &
    pid=$!
    for ((i = 0; i < 600; i++)); do
        ! ready || break
        kill -0 "$pid" 2>/dev/null || { tail -n 5 "$log" "$state/server.out" >&2; die "the server does not start" "Mend what it says above; \`$PROGRAM doctor\` checks what it needs"; }
        sleep 0.1
    done
    ready || die "the server is not ready after a minute" "Its log tells why: $log"
    printf '%s' "$pid $inputs" >"$state/quickstart"
    note "started as process $pid; its log is $log"
fi

end_stage
told_stages
printf '\n'
program demo --room </dev/null ||
    die "the demo did not end well" "See what it says above; \`$PROGRAM doctor\` checks what it needs"

tell_login "$(in_effect MATRIX_HOMESERVER)" "$(in_effect MATRIX_ADMIN_USER)" "$(in_effect MATRIX_USER)"
if ((${#mode[@]})); then
    printf '\nThe demo model works there, which is no real one. Put LLM_API_KEY into .env, and run this script again.\n'
fi
printf '%s\n' "The server runs until this machine stops, or \`kill $pid\`; as a service: sudo scripts/install-service.sh."
