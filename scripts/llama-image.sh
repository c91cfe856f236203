#!/usr/bin/env bash
# Builds the image with a real llama-server for the tests, if what it is made of has changed. Where it cannot be built
# (an architecture without the package, no way to Debian's unstable), the tests that need it say that they were left out.
#   scripts/llama-image.sh
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/image.sh
. "$(dirname "$0")/image.sh"
case ${1:-} in
    '') ;;
    -h | --help) show_help && exit 0 ;;
    *) die "$1 is not known" "scripts/llama-image.sh takes nothing" ;;
esac
cd "$REPO"

build_image "the tests' llama-server" matrix-agent-llama:latest 2 "" scripts/llama scripts/llama/Containerfile scripts/llama/tiny.py \
    scripts/llama/requirements.txt
