#!/usr/bin/env bash
# All that must hold, on a machine that may have nothing yet: format, lints, scripts, spelling, dependencies, and every
# test with a real Podman. What it installs for itself is kept for the next run.
#   ./scripts/test.sh [ARGUMENTS FOR cargo nextest run]
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
[[ ${1:-} != -h && ${1:-} != --help ]] || { show_help && exit 0; }
cd "$REPO"
export PATH="$PATH:$TOOLS/bin"

check_system

stage "what the tests need"
check_disk "$REPO" 8 "the tests"
install_podman
grant_id_range
configure_podman
check_podman
install_packages git shellcheck systemd e2fsprogs sqlite3
ensure_rust fmt clippy
cargo_tool nextest 0.9.143
cargo_tool deny 0.20.2
cargo_tool machete 0.9.2
python_tool typos 1.52.0
test_synapse

stage "format, scripts, spelling, dependencies"
cargo fmt --all --check || die "the format is off" "Run: cargo fmt --all"
{ shellcheck -x scripts/*.sh .ci/run sandbox/image/*.sh scripts/postgres/*.sh packaging/deb/* tests/element/*.sh && shellcheck -s sh scripts/gvisor/runsc src/environments/*.sh src/tools/*.sh src/tools/*/*.sh; } || die "shellcheck found something" "Mend it; a rule that is wrong here gets a comment that says why"
# Programs that this machine may lack do not matter here.
units=$(mktemp -d)
cp systemd/*.{service,timer,path,socket} "$units"
sed -i 's#^\(Exec[A-Za-z]*=-\{0,1\}\)[^ ]*#\1/bin/true#' "$units"/*.service
quietly "systemd would not take a unit" "Mend it in systemd/" systemd-analyze verify "$units"/*
mkdir "$units/user" && sed 's#^ExecStart=[^ ]*#ExecStart=/bin/true#' systemd/user/matrix-agent.service >"$units/user/matrix-agent.service"
quietly "systemd would not take the unit of users" "Mend it in systemd/user/" env XDG_RUNTIME_DIR="$units" systemd-analyze verify --user "$units/user/matrix-agent.service"
quadlet=/usr/libexec/podman/quadlet # from Podman 4.4 on
[[ ! -x $quadlet ]] || quietly "Podman would not take the homeserver's Quadlet" "Mend systemd/synapse.container" \
    env QUADLET_UNIT_DIRS="$REPO/systemd" "$quadlet" -dryrun
typos || die "words are misspelt" "Mend them, or name them in typos.toml"
quietly "the dependencies could not be fetched" "Check that crates.io is reachable, then try again" cargo fetch --locked
quietly "a dependency is unused" "Take it out of its Cargo.toml" cargo machete
quietly "a dependency is not allowed" "Read deny.toml" cargo deny --offline check bans licenses sources

stage "lints"
# Each clippy knows other lints. Those of the version that the project names must hold; a newer one only tells.
case $(rustc --version) in
    "rustc $(rust_wanted)."*) level=(-D warnings) ;;
    *) level=(--cap-lints warn) ;;
esac
cargo clippy --locked --workspace --all-targets --quiet -- "${level[@]}" || die "clippy has warnings" "Mend them"

stage "the sandbox image, and Element in it"
scripts/build-image.sh
test_element
scripts/llama-image.sh || note "the tests with a real llama-server are left out"

stage "building the tests"
cargo nextest run --locked --workspace --no-run --cargo-quiet || die "the tests do not build" "Mend what the compiler says above"

end_stage
told_stages
# Most tests wait for containers, homeservers and browsers, so that twice as many as processors keep these at work.
export NEXTEST_TEST_THREADS=${NEXTEST_TEST_THREADS:-$(($(nproc) * 2))}
exec cargo nextest run --locked --workspace "$@" </dev/null
