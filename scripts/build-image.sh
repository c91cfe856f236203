#!/usr/bin/env bash
# Builds the sandbox image, if what it is made of has changed since it was last built.
#   scripts/build-image.sh [--fresh] [--dry-run]
#     --fresh     build it anew all the same, with the newest Debian packages
#     --dry-run   only say whether it would be built
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/image.sh
. "$(dirname "$0")/image.sh"
cd "$REPO"

IMAGE=${SANDBOX_IMAGE:-matrix-agent-sandbox:latest}

fresh=
while (($# > 0)); do
    case $1 in
        --fresh) fresh=yes ;;
        --dry-run) DRY_RUN=yes ;;
        -h | --help) show_help && exit 0 ;;
        *) die "$1 is not known" "scripts/build-image.sh --help lists the options" ;;
    esac
    shift
done

mapfile -t inputs < <(find Containerfile .containerignore hooks sandbox -path sandbox/sandboxd -prune -o -type f -print)
build_image "the sandbox image" "$IMAGE" 6 "$fresh" . "${inputs[@]}"
