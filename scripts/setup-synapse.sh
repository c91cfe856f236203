#!/usr/bin/env bash
# A Matrix homeserver of one's own on this machine: Synapse in a Podman container, for loopback alone unless told
# otherwise, without federation and with registration closed; and the accounts of the bot and of the person who
# administers it. Run it again at any time: what is there stays as it is.
#   ./scripts/setup-synapse.sh [--listen ADDRESS] [--port PORT] [--postgres] [--fresh] [--dry-run]
#     --listen    who else may reach it: 0.0.0.0 or an address of this machine; 127.0.0.1 takes that back
#     --port      instead of 8008
#     --postgres  keep its data in PostgreSQL, in a container of its own, from the beginning on; without it in SQLite
#     --fresh     build its image anew, with the newest Debian packages; if it does not answer then, the old image serves
#     --dry-run   only say what would be done
# It reads MATRIX_USER, MATRIX_PASSWORD, MATRIX_ADMIN_USER, MATRIX_ADMIN_PASSWORD and VPS_IP from .env, and writes what is
# missing there. Container and volume are named by SYNAPSE_NAME (matrix-agent-synapse), the database's container the same with
# `-db`; its files are in that volume, too. Where scripts/install-service.sh
# has made it a service, that one is started anew when something has changed.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/image.sh
. "$(dirname "$0")/image.sh"

NAME=${SYNAPSE_NAME:-matrix-agent-synapse}
IMAGE=localhost/matrix-agent-synapse:latest
DATABASE=$NAME-db
DATABASE_IMAGE=localhost/matrix-agent-postgres:latest
listen='' port='' fresh='' postgres=''

while (($# > 0)); do
    case $1 in
        --listen | --port) (($# > 1)) || die "$1 needs a value" "scripts/setup-synapse.sh --help lists the options" ;;&
        --listen) listen=$2 && shift ;;
        --port) port=$2 && shift ;;
        --fresh) fresh=yes ;;
        --postgres) postgres=yes ;;
        --dry-run) DRY_RUN=yes ;;
        -h | --help) show_help && exit 0 ;;
        *) die "$1 is not known" "scripts/setup-synapse.sh --help lists the options" ;;
    esac
    shift
done
[[ -z $port || $port =~ ^[1-9][0-9]{0,4}$ && $port -le 65535 ]] || die "--port $port is no port" "Give a number from 1 to 65535"
[[ -z $listen || $listen =~ ^[0-9.]+$ || $listen == *:* ]] ||
    die "--listen $listen is no IP address" "Give one of this machine (\`ip address\` lists them), or 0.0.0.0 for all"

check_settings
check_restored "$(state_dir)"

# ---- who ----

host=$(setting VPS_IP)
[[ $host != *:* ]] || host="[$host]"
host=${host:-localhost}
user=$(setting MATRIX_USER)
admin=$(setting MATRIX_ADMIN_USER)
homeserver=$(setting MATRIX_HOMESERVER)
if [[ -z $user ]]; then
    server=${admin#*:}
    user=@matrixbot:${server:-$host}
fi
admin=${admin:-@admin:${user#*:}}
server=${user#*:}
for who in "$user" "$admin"; do
    [[ $who =~ ^@[a-z0-9._=/+-]+:[A-Za-z0-9.:-]+$|^@[a-z0-9._=/+-]+:\[[0-9A-Fa-f:.]+\](:[0-9]+)?$ ]] ||
        die "\`$who\` is no Matrix user ID that Synapse makes" "Write it as @name:server, in small letters"
done
[[ ${admin#*:} == "$server" ]] ||
    die "MATRIX_USER ($user) and MATRIX_ADMIN_USER ($admin) are of two servers" "Give both the same name after the colon"
[[ $user != "$admin" ]] || die "MATRIX_USER and MATRIX_ADMIN_USER are the same account" "The bot needs one of its own"
case $homeserver in
    "" | http://127.0.0.1:* | http://localhost:* | "http://$host:"*) ;;
    *) die "MATRIX_HOMESERVER names another homeserver ($homeserver)" \
        "The bot uses that one and needs none here; to have one here, take MATRIX_HOMESERVER out of .env" ;;
esac

# ---- the container ----

image_id() { podman image inspect --format '{{.Id}}' "${1:-$IMAGE}" 2>/dev/null || true; }
# Whether systemd starts it, or the other unit that is given.
is_service() { have systemctl && systemctl cat "${1:-synapse.service}" >/dev/null 2>&1; }

cd "$REPO"
mapfile -t inputs < <(find scripts/synapse -type f ! -name '*.pyc')
if [[ -n $DRY_RUN ]]; then
    build_image "the homeserver's image" "$IMAGE" 2 "$fresh" scripts/synapse "${inputs[@]}"
    [[ -z $postgres ]] || build_image "the database's image" "$DATABASE_IMAGE" 2 "$fresh" scripts/postgres scripts/postgres/*
    note "would: have Synapse for names that end in :$server listen on ${listen:-127.0.0.1, or where it does now}, port ${port:-8008, or the one it has}"
    [[ -z $postgres ]] || note "would: keep its data in PostgreSQL, in the container $DATABASE, which has no network; unless there are data in SQLite, which is refused"
    note "would: start it ($(is_service && printf 'synapse.service' || printf 'the container %s' "$NAME")), unless it runs with these settings"
    note "would: make the accounts $user and $admin unless they are there, and free $user from the rate limits"
    for key in MATRIX_HOMESERVER MATRIX_USER MATRIX_PASSWORD MATRIX_ADMIN_USER MATRIX_ADMIN_PASSWORD; do
        [[ -n $(setting "$key") ]] || note "would: write $key into $ENV_FILE"
    done
    exit 0
fi

mkdir -p "$LOGS"
have podman || install_podman
configure_podman
before=$(image_id)
build_image "the homeserver's image" "$IMAGE" 2 "$fresh" scripts/synapse "${inputs[@]}"

inside=(podman run --rm --interactive --network host --cap-drop=all --volume "$NAME:/data" "$IMAGE")
told=$(printf 'SERVER_NAME=%s\nLISTEN=%s\nPORT=%s\nPOSTGRES=%s\n' "$server" "$listen" "$port" "$postgres" |
    "${inside[@]}" /opt/synapse/setup.py configure 2>"$SCRIPTS_LOG") || {
    problem=$(sed -n 's/^error: //p' "$SCRIPTS_LOG" | tail -n 1)
    case $problem in
        *"was made for"*) die "$problem" "Name the users in .env accordingly; or begin anew, without its rooms: podman rm -f --ignore $NAME $DATABASE; podman volume rm $NAME" ;;
        *"in SQLite"*) die "$problem" "Leave --postgres out; or begin anew, without its rooms: podman rm -f --ignore $NAME $DATABASE; podman volume rm $NAME" ;;
        *"cannot be used"*) die "$problem" "\`ip address\` lists the addresses of this machine; 0.0.0.0 is all of them" ;;
    esac
    tail -n 5 "$SCRIPTS_LOG" | sed 's/^/    /' >&2
    die "Synapse could not be configured" "Mend what it says above, then try again (the whole: $SCRIPTS_LOG)"
}
value() { sed -n "s/^$1=//p" <<<"$told"; }
port=$(value port)
addresses=$(value addresses)
url=http://127.0.0.1:$port

# The database is there before the homeserver asks for it.
database_runs() {
    local status image
    read -r status image < <(podman container inspect --format '{{.State.Status}} {{.Image}}' "$DATABASE" 2>/dev/null) || return 1
    [[ $status == running && $image == "$(image_id "$DATABASE_IMAGE")" ]]
}
start_database() {
    if is_service synapse-db.service; then
        systemctl restart synapse-db.service # and with it the homeserver, which needs it
    else
        podman rm --force --ignore --time 60 "$DATABASE" && podman run --detach --name "$DATABASE" --restart always --network none \
            --cap-drop=all --security-opt no-new-privileges --read-only --tmpfs /tmp --pids-limit 256 --stop-timeout 60 \
            --log-driver k8s-file --log-opt max-size=10mb --volume "$NAME:/data" "$DATABASE_IMAGE"
    fi && podman exec "$DATABASE" /opt/database.sh answers
}
load_dump() {
    podman exec --interactive "$DATABASE" sh -c 'exec /opt/database.sh load </data/homeserver.pgdump' &&
        podman exec "$DATABASE" rm /data/homeserver.pgdump
}
if [[ -n $(value postgres) ]]; then
    build_image "the database's image" "$DATABASE_IMAGE" 2 "$fresh" scripts/postgres scripts/postgres/*
    if database_runs; then
        note "PostgreSQL runs: $DATABASE"
    else
        start_database >"$SCRIPTS_LOG" 2>&1 || {
            podman logs --tail 10 "$DATABASE" 2>&1 | cat "$SCRIPTS_LOG" - | tail -n 15 | sed 's/^/    /' >&2
            die "PostgreSQL does not answer" "Mend what it says above, then try again"
        }
        note "PostgreSQL started: $DATABASE"
    fi
    if [[ -n $(value dump) ]]; then
        quietly "the backup's data could not be read into PostgreSQL" "Mend what it says above, then try again" load_dump
        note "read the backup's data into it"
    fi
fi

# Whether it runs, of this image, and since its settings last changed.
runs() {
    local status image since
    read -r status image since < <(podman container inspect \
        --format '{{.State.Status}} {{.Image}} {{.State.StartedAt.Unix}}' "$NAME" 2>/dev/null) || return 1
    [[ $status == running && $image == "$(image_id)" ]] && ((since >= $(value changed)))
}
# Starts it, and waits until it answers.
start() {
    if is_service; then
        systemctl reset-failed synapse.service 2>/dev/null || true
        systemctl restart synapse.service || {
            journalctl --quiet --no-pager --lines 10 --output cat --unit synapse.service
            return 1
        }
    else
        podman rm --force --time 10 "$NAME" >/dev/null 2>&1 || true
        # The host's network: it listens on this machine's loopback, and Podman's own networks may not be installed.
        podman run --detach --name "$NAME" --restart always --network host --cap-drop=all \
            --security-opt no-new-privileges --read-only --tmpfs /tmp --pids-limit 256 --stop-timeout 10 \
            --log-driver k8s-file --log-opt max-size=10mb --volume "$NAME:/data" "$IMAGE" || return 1
    fi
    podman exec "$NAME" /opt/synapse/bin/python /opt/synapse/setup.py answers && return 0
    podman logs --tail 10 "$NAME"
    return 1
}

if runs; then
    note "Synapse runs: $url"
else
    if ! is_service; then
        podman stop --ignore --time 10 "$NAME" >/dev/null 2>&1 || true
        if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            die "port $port is taken by another program" "Stop it (\`ss -ltnp\` names it), or choose another port: --port 8009"
        fi
    fi
    if ! start >"$SCRIPTS_LOG" 2>&1; then
        tail -n 15 "$SCRIPTS_LOG" | sed 's/^/    /' >&2
        if [[ -n $before && $before != "$(image_id)" ]] && podman tag "$before" "$IMAGE" 2>/dev/null && start >/dev/null 2>&1; then
            die "Synapse does not answer with its new image" "The old one serves again; what the new one said is above"
        fi
        die "Synapse does not answer" "Mend what it says above, then try again"
    fi
    note "Synapse started: $url"
fi
restarts=("$NAME")
[[ -z $(value postgres) ]] || restarts=("$DATABASE" "$NAME")
if is_service; then
    :
elif [[ -d /run/systemd/system && $EUID -eq 0 ]]; then
    systemctl --quiet enable podman-restart.service 2>/dev/null ||
        note "after a reboot, start it with: podman start ${restarts[*]}"
else
    note "after a reboot, start it with: podman start ${restarts[*]}"
fi

# ---- the accounts ----

password=$(setting MATRIX_PASSWORD)
admin_password=$(setting MATRIX_ADMIN_PASSWORD)
[[ -n $password ]] || { password=$(new_password) && settle MATRIX_PASSWORD "$password"; }
[[ -n $admin_password ]] || { admin_password=$(new_password) && settle MATRIX_ADMIN_PASSWORD "$admin_password"; }
if ! printf 'USER=%s\nPASSWORD=%s\nADMIN_USER=%s\nADMIN_PASSWORD=%s\n' "$user" "$password" "$admin" "$admin_password" |
    podman exec --interactive "$NAME" /opt/synapse/bin/python /opt/synapse/setup.py accounts 2>"$SCRIPTS_LOG" | sed 's/^/  /'; then
    { podman logs --tail 10 "$NAME" 2>&1; tail -n 5 "$SCRIPTS_LOG"; } | sed 's/^/    /' >&2
    die "the accounts could not be made" "Mend what Synapse says above, then try again (its log: podman logs $NAME)"
fi
if [[ $homeserver != "$url" ]]; then
    settle MATRIX_HOMESERVER "$url"
    ! is_service || note "the bot's server goes on with the old address until: systemctl restart matrix-agent"
fi
[[ -n $(setting MATRIX_USER) ]] || settle MATRIX_USER "$user"
[[ -n $(setting MATRIX_ADMIN_USER) ]] || settle MATRIX_ADMIN_USER "$admin"

for address in $addresses; do
    [[ $address == 127.0.0.1 || $address == ::1 ]] ||
        note "it listens on $address too: passwords and unencrypted rooms travel there in the clear; a reverse proxy with TLS is better"
done
[[ -n ${LOGIN_IS_TOLD:-} ]] || tell_login "$url" "$admin" "$user"
