#!/usr/bin/env bash
# Looks whether what coding agents' hooks tell in the sandboxes arrives: `matrix-agent check-ipc`, under the name that the
# original gave it.
#   scripts/check-ipc-logs.sh [CONTAINER…] [--json] [--env-file FILE] [--config-file FILE]
#     --json         print JSON
#     --env-file     the settings, where the program reads them from elsewhere
#     --config-file  the same for matrix-agent.toml
# MATRIX_AGENT names the program where it is not in PATH.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
value='' # of the option before
for one in "$@"; do
    [[ -z $value ]] || { value='' && continue; }
    case $one in
        --env-file | --config-file) value=comes ;;
        --json | --env-file=* | --config-file=*) ;;
        -h | --help) show_help && exit 0 ;;
        -*) die "$one is not known" "scripts/check-ipc-logs.sh --help lists the options" ;;
    esac
done
program=${MATRIX_AGENT:-matrix-agent}
have "$program" || die "there is no program $program" "Run scripts/quickstart.sh, or name it: MATRIX_AGENT=/path/to/matrix-agent"
exec "$program" check-ipc "$@"
