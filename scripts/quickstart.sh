#!/usr/bin/env bash
# From a fresh Debian 12, 13 or Ubuntu 24.04 to an agent in a Matrix room: installs what is missing, builds the program and
# the sandbox image, starts a homeserver and the server, shows one real job in a room, and says how to log in. Run it again
# at any time: what is there stays as it is, and a server of an older build or older settings is started anew.
#   ./scripts/quickstart.sh [--listen ADDRESS] [--port PORT]      (of the homeserver; see setup-synapse.sh)
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$REPO"
PROGRAM=target/quick/matrix-agent

check_system
check_settings

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

stage "the program"
cargo build --locked --profile quick --bin matrix-agent </dev/null ||
    die "the program does not build" "Mend what the compiler says above; if crates could not be fetched, check the network"

stage "the sandbox image"
scripts/build-image.sh

stage "the homeserver"
case $(setting MATRIX_HOMESERVER) in
    "" | http://127.0.0.1:* | http://localhost:* | "http://$(setting VPS_IP):"*) LOGIN_IS_TOLD=later scripts/setup-synapse.sh "$@" ;;
    *) note "yours: $(setting MATRIX_HOMESERVER)" ;;
esac

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
