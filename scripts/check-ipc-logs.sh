#!/usr/bin/env bash
# Looks whether what coding agents' hooks tell in the sandboxes arrives: `matrix-agent check-ipc`, under the name that the
# original gave it. Usage: scripts/check-ipc-logs.sh [CONTAINER…]
set -euo pipefail
exec "${MATRIX_AGENT:-matrix-agent}" check-ipc "$@"
