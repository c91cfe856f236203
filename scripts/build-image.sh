#!/usr/bin/env bash
# Builds the sandbox image, if what it is made of has changed since it was last built.
#   scripts/build-image.sh [--fresh]     --fresh: build it anew all the same, with the newest Debian packages
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
cd "$REPO"

IMAGE=${SANDBOX_IMAGE:-matrix-agent-sandbox:latest}
LABEL=org.matrix-agent.inputs
BASE=docker.io/library/debian:trixie-slim
log=$REPO/target/image-build.log

case ${1:-} in
    --fresh) fresh=yes ;;
    "") fresh= ;;
    *) die "$1 is not known" "Usage: scripts/build-image.sh [--fresh]" ;;
esac

have podman || die "podman is not installed" "Run scripts/quickstart.sh, or: apt-get install podman"
scripts/base-image.sh "$BASE"

inputs=$({
    podman image inspect --format '{{.Id}}' "$BASE"
    find Containerfile .containerignore sandbox -path sandbox/sandboxd -prune -o -type f -print | LC_ALL=C sort | xargs sha256sum
} | sha256sum | cut -c 1-32)
was=$(podman image inspect --format "{{index .Labels \"$LABEL\"}}" "$IMAGE" 2>/dev/null || true)
if [[ -z $fresh && $was == "$inputs" ]]; then
    note "the sandbox image $IMAGE is up to date"
    exit 0
fi
before=$(podman image inspect --format '{{.Id}}' "$IMAGE" 2>/dev/null || true)

options=(--network host --pull=never --label "$LABEL=$inputs" --tag "$IMAGE")
[[ -z $fresh ]] || options+=(--no-cache)
# A company's own CA: seen by the build, not kept in the image.
if [[ -n ${SSL_CERT_FILE:-} ]]; then
    options+=(--volume "$SSL_CERT_FILE:/run/extra-ca.crt:ro")
    options+=(--build-arg PIP_CERT=/run/extra-ca.crt --build-arg NODE_EXTRA_CA_CERTS=/run/extra-ca.crt)
fi

check_disk "$(podman info --format '{{.Store.GraphRoot}}')" 6 "the sandbox image"
note "building $IMAGE; the first time takes some minutes"
mkdir -p "$(dirname "$log")"
if ! podman build "${options[@]}" . </dev/null 2>&1 | tee "$log" | sed -un 's/^STEP \([0-9/]*\): \(.\{1,90\}\).*/  \1  \2/p'; then
    tail -n 15 "$log" | sed 's/^/    /' >&2
    step=$(sed -n 's/^STEP \([0-9/]*\):.*/\1/p' "$log" | tail -n 1)
    case $(tail -n 40 "$log") in
        *"No space left"*) mend="The disk is full: free some space, or run: podman image prune" ;;
        *CERTIFICATE_VERIFY_FAILED* | *"self-signed certificate"* | *SELF_SIGNED_CERT*)
            mend="The registries' certificates are signed by a CA of your own: set SSL_CERT_FILE to its bundle" ;;
        *"esolv"* | *"No matching distribution"* | *"network"* | *ECONN* | *ETIMEDOUT* | *ENOTFOUND*)
            mend="A registry did not answer: check the network and HTTPS_PROXY, then try again; finished steps are kept" ;;
        *"RLIMIT"* | *"rlimit"*) mend="This machine's limits are low: run scripts/quickstart.sh as root, it writes a setting for Podman" ;;
        *) mend="Read what it says above, then try again; finished steps are kept" ;;
    esac
    die "the sandbox image failed at step ${step:-1}" "$mend (the whole: $log)"
fi
# The one it replaces, unless a room still runs on it; the server removes it later.
after=$(podman image inspect --format '{{.Id}}' "$IMAGE")
[[ -z $before || $before == "$after" ]] || podman image rm "$before" >/dev/null 2>&1 || true
