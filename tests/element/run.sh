#!/usr/bin/env bash
# Element's interface in a browser, for tests; everything runs inside the sandbox image.
#   tests/element/run.sh build              bundles it, if what it is made of has changed
#   tests/element/run.sh drive NAME OUT     then starts drive.mjs in a container of this name; pictures go below OUT
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../../scripts/lib.sh"

HERE=$REPO/tests/element
IMAGE=${SANDBOX_IMAGE:-matrix-agent-sandbox:latest}
# In the machine's own network, where the homeserver and the registry are, and without any rights besides.
CONTAINER=(podman run --rm --pull=never --network host --security-opt label=disable --cap-drop all
    --volume "$HERE:/element:ro")

hash=$(cd "$HERE" && cat package.json package-lock.json .npmrc build.mjs shell/* | sha256sum | cut -c 1-16)
bundle=$TOOLS/element-$hash

make_bundle() {
    # Its 20,000 files stay in memory: on a disk, taking them away again takes longer than all the rest.
    local options=(--timeout 600 --volume "$bundle.new:/bundle" --tmpfs "/tmp:exec,size=2g")
    # A company's own CA.
    [[ -z ${SSL_CERT_FILE:-} ]] || options+=(--volume "$SSL_CERT_FILE:/run/ca.crt:ro" --env NODE_EXTRA_CA_CERTS=/run/ca.crt)
    podman image exists "$IMAGE" || die "the image $IMAGE is not there" "Run: scripts/build-image.sh"
    note "bundling Element for the tests"
    rm -rf "$bundle.new"
    mkdir "$bundle.new"
    SCRIPTS_LOG=$REPO/target/element.log quietly "Element's interface could not be bundled" \
        "Check the network to npm's registry, then try again" \
        "${CONTAINER[@]}" "${options[@]}" "$IMAGE" sh -ec '
            mkdir /tmp/build && cd /tmp/build
            cp -r /element/package.json /element/package-lock.json /element/.npmrc /element/build.mjs /element/shell .
            npm ci --cache /tmp/npm
            node build.mjs /bundle'
    mv "$bundle.new" "$bundle"
    find "$TOOLS" -maxdepth 1 -name 'element-*' -mtime +14 -exec rm -rf {} +
}

build() {
    mkdir -p "$TOOLS"
    exec 9>"$TOOLS/element.lock"
    flock -w 600 9 || die "another run has been bundling Element for ten minutes" "Look at it: podman ps"
    if [[ -d $bundle ]]; then touch "$bundle"; else make_bundle; fi
    exec 9>&-
}

case "${1:-} $#" in
    "build 1") build ;;
    "drive 3")
        build >&2
        # It ends with its orders, and after ten minutes in any case.
        exec "${CONTAINER[@]}" --interactive --timeout 600 --name "$2" --tmpfs "/tmp:size=1g" \
            --volume "$bundle:/bundle:ro" --volume "$3:$3" "$IMAGE" node /element/drive.mjs /bundle "$3"
        ;;
    *) die "the call is wrong" "Usage: tests/element/run.sh build | drive NAME OUT" ;;
esac
