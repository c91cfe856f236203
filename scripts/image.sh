# shellcheck shell=bash
# How images are built: when what they are made of has changed, and then with a plain word about what went wrong.
# Sourced after lib.sh, never run.

BASE_IMAGE=docker.io/library/debian:trixie-slim

# build_image WHAT TAG GIGABYTES FRESH CONTEXT INPUT…: builds CONTEXT if one of the INPUT files or the base has changed
# since TAG was built, or if FRESH is not empty. Gigabytes: what the build needs.
build_image() {
    local what=$1 image=$2 gigabytes=$3 fresh=$4 context=$5
    shift 5
    local label=org.matrix-agent.inputs log inputs was before after step mend
    log=$LOGS/${image//[^a-z0-9-]/-}-build.log
    if [[ -n $DRY_RUN ]] && { ! have podman || ! podman image exists "$BASE_IMAGE"; }; then
        note "would: fetch $BASE_IMAGE and build $what $image of it"
        return 0
    fi
    have podman || die "podman is not installed" "Run scripts/quickstart.sh, or: apt-get install podman"
    "$REPO/scripts/base-image.sh" "$BASE_IMAGE"

    inputs=$({
        podman image inspect --format '{{.Id}}' "$BASE_IMAGE"
        printf '%s\n' "$@" | LC_ALL=C sort | xargs sha256sum
    } | sha256sum | cut -c 1-32)
    was=$(podman image inspect --format "{{index .Labels \"$label\"}}" "$image" 2>/dev/null || true)
    if [[ -z $fresh && $was == "$inputs" ]]; then
        note "$what $image is up to date"
        return 0
    fi
    if [[ -n $DRY_RUN ]]; then
        note "would: build $what $image"
        return 0
    fi
    before=$(podman image inspect --format '{{.Id}}' "$image" 2>/dev/null || true)

    local options=(--network host --pull=never --label "$label=$inputs" --tag "$image")
    [[ -z $fresh ]] || options+=(--no-cache)
    # A company's own CA: seen by the build, not kept in the image.
    if [[ -n ${SSL_CERT_FILE:-} ]]; then
        options+=(--volume "$SSL_CERT_FILE:/run/extra-ca.crt:ro" --build-arg PIP_CERT=/run/extra-ca.crt)
        if grep -q '^ARG NODE_EXTRA_CA_CERTS' "$context/Containerfile"; then
            options+=(--build-arg NODE_EXTRA_CA_CERTS=/run/extra-ca.crt)
        fi
    fi

    check_disk "$(podman info --format '{{.Store.GraphRoot}}')" "$gigabytes" "$what"
    note "building $image; the first time takes some minutes"
    mkdir -p "$(dirname "$log")"
    if ! podman build "${options[@]}" "$context" </dev/null 2>&1 | tee "$log" | sed -un 's/^STEP \([0-9/]*\): \(.\{1,90\}\).*/  \1  \2/p'; then
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
        die "$what failed at step ${step:-1}" "$mend (the whole: $log)"
    fi
    # The one it replaces, unless a room still runs on it; the server removes it later.
    after=$(podman image inspect --format '{{.Id}}' "$image")
    [[ -z $before || $before == "$after" ]] || podman image rm "$before" >/dev/null 2>&1 || true
}
