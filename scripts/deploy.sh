#!/usr/bin/env bash
# Puts the newest version in the place of the one that serves: fetches, builds, tries it on a copy of the data, switches, and goes
# back if it does not become ready. A thin front of `matrix-agent redeploy`, which does it all.
#   ./scripts/deploy.sh [--ref REF] [--rollback] [--room ROOM] [--dry-run]
#     --ref       this commit, tag or branch in place of the newest of the branch that the service follows
#     --rollback  put the version that served before back
#     --room      tell this room what becomes of it
#     --dry-run   only say what it would bring, and whether it could be done
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

arguments=()
while (($# > 0)); do
    case $1 in
        --ref | --room)
            (($# > 1)) || die "$1 needs a value" "scripts/deploy.sh --help lists the options"
            arguments+=("$1" "$2") && shift
            ;;
        --rollback) arguments+=("$1") ;;
        --dry-run) arguments+=(--check) ;;
        -h | --help) show_help && exit 0 ;;
        *) die "$1 is not known" "scripts/deploy.sh --help lists the options" ;;
    esac
    shift
done

if [[ -e /etc/matrix-agent/update.env ]]; then
    program=/usr/local/bin/matrix-agent
    settings=/etc/matrix-agent/.env
    export STATE_DIR=/var/lib/matrix-agent
    [[ $EUID -eq 0 ]] || exec sudo "STATE_DIR=$STATE_DIR" "$program" --env-file "$settings" redeploy "${arguments[@]}"
elif [[ $EUID -eq 0 ]]; then
    die "no service is installed: there is no /etc/matrix-agent/update.env" "Run scripts/install-service.sh first"
else
    program=$HOME/.local/bin/matrix-agent
    settings=${XDG_CONFIG_HOME:-$HOME/.config}/matrix-agent/.env
fi
[[ -x $program ]] || die "no service is installed: $program is missing" "Run scripts/install-service.sh first"
exec "$program" --env-file "$settings" redeploy "${arguments[@]}"
