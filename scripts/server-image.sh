#!/usr/bin/env bash
# Builds an image of the server itself, localhost/matrix-agent-server:latest, for machines on which all runs in containers.
#   ./scripts/server-image.sh [--binary PATH] [--fresh] [--dry-run]
#     --binary    put this program into it instead of building a release, which takes a third of an hour on two cores
#     --fresh     build it anew all the same, with the newest Debian packages
#     --dry-run   only say what would be done
# docs/server-image.md says how it is started. Whoever may start it could become root of the machine: it has Podman's socket.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/image.sh
. "$(dirname "$0")/image.sh"
cd "$REPO"

binary='' fresh=''
while (($# > 0)); do
    case $1 in
        --binary) (($# > 1)) || die "$1 needs a value" "scripts/server-image.sh --help lists the options" ;;&
        --binary) binary=$2 && shift ;;
        --fresh) fresh=yes ;;
        --dry-run) DRY_RUN=yes ;;
        -h | --help) show_help && exit 0 ;;
        *) die "$1 is not known" "scripts/server-image.sh --help lists the options" ;;
    esac
    shift
done
[[ -z $binary || -x $binary ]] || die "$binary is no program" "Give the path of matrix-agent"

if [[ -z $binary && -n $DRY_RUN ]]; then
    note "would: build a release, and an image of it"
    exit 0
elif [[ -z $binary ]]; then
    # shellcheck disable=SC2119 # no components wanted
    ensure_rust
    cargo build --locked --release --bin matrix-agent </dev/null || die "the program does not build" "Mend what the compiler says above"
    binary=target/release/matrix-agent
fi
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
cp packaging/server/Containerfile "$context"
install -m 755 "$binary" "$context/matrix-agent"
cd "$context" # what it is made of is named without this folder, which has another name each time
build_image "the server's image" localhost/matrix-agent-server:latest 2 "$fresh" . Containerfile matrix-agent
