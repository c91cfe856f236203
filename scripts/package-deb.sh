#!/usr/bin/env bash
# Makes a Debian package of the program, its units, its scripts and its documentation: target/debian/matrix-agent_*.deb.
#   ./scripts/package-deb.sh [--binary PATH] [--dry-run]
#     --binary    package this program instead of building a release, which takes a third of an hour on two cores
#     --dry-run   only say what would be done
# Whoever installs it has nothing to build but the sandbox image. It needs cargo-deb, which it installs where it is missing.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$REPO"
export PATH="$PATH:$TOOLS/bin"

binary=''
while (($# > 0)); do
    case $1 in
        --binary) (($# > 1)) || die "$1 needs a value" "scripts/package-deb.sh --help lists the options" ;;&
        --binary) binary=$2 && shift ;;
        --dry-run) DRY_RUN=yes ;;
        -h | --help) show_help && exit 0 ;;
        *) die "$1 is not known" "scripts/package-deb.sh --help lists the options" ;;
    esac
    shift
done
[[ -z $binary || -x $binary ]] || die "$binary is no program" "Give the path of matrix-agent"
if [[ -n $DRY_RUN ]]; then
    [[ -n $binary ]] || note "would: build a release"
    note "would: lay the package's files out in target/package, and have cargo-deb pack them"
    exit 0
fi

have dpkg-deb || die "this system has no dpkg-deb" "Packages are made on Debian or Ubuntu"
install_packages dpkg-dev xz-utils # the first finds which libraries the program needs
# shellcheck disable=SC2119 # no components wanted
ensure_rust
cargo_tool deb 3.8.0
if [[ -z $binary ]]; then
    cargo build --locked --release --bin matrix-agent </dev/null || die "the program does not build" "Mend what the compiler says above"
    binary=target/release/matrix-agent
fi

stage "the files"
tree=target/package
rm -rf "$tree"
umask 022
library=$tree/usr/lib/matrix-agent
docs=$tree/usr/share/doc/matrix-agent
mkdir -p "$tree"/usr/{bin,lib/systemd/system,share/{bash-completion/completions,zsh/vendor-completions,fish/vendor_completions.d,man/man1}} \
    "$library/scripts" "$docs/examples"
install -m 755 "$binary" "$tree/usr/bin/matrix-agent"
strip "$tree/usr/bin/matrix-agent"

# What the timers run, and what the images are made of.
find Containerfile .containerignore .env.example Cargo.toml hooks sandbox scripts/synapse scripts/postgres scripts/gvisor \
    -path sandbox/sandboxd -prune -o -type f ! -name '*.pyc' -print0 | tar -c --null --no-recursion -T - | tar -x -C "$library" --no-same-owner
cp scripts/{lib,image,base-image,build-image,setup-synapse,backup,restore,uninstall}.sh "$library/scripts"
for unit in systemd/matrix-agent{,-backup,-images,-podman}.service systemd/matrix-agent-{backup,images}.timer systemd/matrix-agent-podman.socket; do
    sed 's|/usr/local/lib/matrix-agent/docs|/usr/share/doc/matrix-agent|; s|/usr/local/|/usr/|g' "$unit" >"$tree/usr/lib/systemd/system/${unit##*/}"
done
cp docs/*.md README.md ARCHITECTURE.md CHANGELOG.md "$docs"
cp config/*.example.json docs/matrix-agent.toml "$docs/examples"

program=$tree/usr/bin/matrix-agent
"$program" completions bash >"$tree/usr/share/bash-completion/completions/matrix-agent"
"$program" completions zsh >"$tree/usr/share/zsh/vendor-completions/_matrix-agent"
"$program" completions fish >"$tree/usr/share/fish/vendor_completions.d/matrix-agent.fish"
"$program" man "$tree/usr/share/man/man1"
chmod -R u=rwX,go=rX "$tree"

stage "the package"
quietly "cargo-deb could not make the package" "Mend what it says above" cargo deb --locked --no-build --no-strip --compress-system --output target/debian/
end_stage
note "$(tail -n 1 "$SCRIPTS_LOG")"
