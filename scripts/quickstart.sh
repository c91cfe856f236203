#!/usr/bin/env bash
# From a fresh Debian 12, 13 or Ubuntu 24.04 to an agent at work: installs what is missing, builds the program and the
# sandbox image, and shows one real job. Run it again at any time: what is there stays as it is.
#   ./scripts/quickstart.sh
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$REPO"

check_system

stage "Podman"
[[ -x target/quick/matrix-agent ]] || check_disk "$REPO" 5 "the build"
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

end_stage
told_stages
printf '\n'
target/quick/matrix-agent demo "$@" </dev/null ||
    die "the demo did not end well" "See what it says above; \`target/quick/matrix-agent doctor\` checks what it needs"
printf '\nNext: cp .env.example .env, put LLM_API_KEY into it, then: target/quick/matrix-agent chat\n'
