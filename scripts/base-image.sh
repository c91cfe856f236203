#!/usr/bin/env bash
# Brings the sandbox's base image, once: by `podman pull`, pinned by digest, or by debootstrap where no registry answers.
#   scripts/base-image.sh [TAG]
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
case ${1:-} in
    -h | --help) show_help && exit 0 ;;
    -*) die "$1 is not known" "scripts/base-image.sh --help says how it is used" ;;
esac
(($# < 2)) || die "$2 is one image too many" "Name one"

# debian:trixie-slim (13.6) of 2026-08-04. A registry keeps what a digest names, so every build starts from the same
# files; `apt-get upgrade` in the Containerfile brings what was mended since.
DIGEST=${BASE_IMAGE_DIGEST:-sha256:3a39a0592364683e6bab97937b72cad5a8fa6dcbbee90edb3bb48c7f8e94f258}
MIRROR=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
SUITE=trixie
tag=${1:-docker.io/library/debian:trixie-slim}

if podman image exists "$tag"; then
    note "base image $tag is there"
    exit 0
fi

pull() {
    local source="${tag%:*}@$DIGEST"
    timeout 300 podman pull -q "$source" </dev/null && podman tag "$source" "$tag"
}

bootstrap() {
    install_packages debootstrap debian-archive-keyring
    local work root released
    work=$(mktemp -d -p "${TMPDIR:-/var/tmp}" matrix-agent-base.XXXXXX)
    # shellcheck disable=SC2064 # the directory's name is known now
    trap "as_root rm -rf -- '$work'" EXIT
    root=$work/root
    note "making it by debootstrap from $MIRROR"
    quietly "debootstrap could not make a Debian $SUITE" \
        "Check that $MIRROR is reachable (another mirror: DEBIAN_MIRROR=…) and that $work may hold device files" \
        as_root debootstrap --variant=minbase "$SUITE" "$root" "$MIRROR"
    released=$(as_root sh -c "sed -n 's/^Date: //p' '$root'/var/lib/apt/lists/*_dists_${SUITE}_*Release" | head -n 1)
    # The official image's sources: security updates too.
    as_root rm -f "$root/etc/apt/sources.list"
    printf 'Types: deb\nURIs: %s\nSuites: %s %s-updates\nComponents: main\nSigned-By: %s\n\nTypes: deb\nURIs: %s\nSuites: %s-security\nComponents: main\nSigned-By: %s\n' \
        "$MIRROR" "$SUITE" "$SUITE" /usr/share/keyrings/debian-archive-keyring.gpg \
        "${MIRROR%/}-security" "$SUITE" /usr/share/keyrings/debian-archive-keyring.gpg |
        as_root tee "$root/etc/apt/sources.list.d/debian.sources" >/dev/null
    as_root sh -c "rm -rf '$root'/var/lib/apt/lists/* '$root'/var/cache/apt/* '$root'/var/log/*.log '$root'/dev/*"
    as_root tar -C "$root" --numeric-owner -c . |
        podman import -q --change 'CMD ["bash"]' --change "LABEL org.matrix-agent.base=debootstrap" \
            --change "LABEL org.matrix-agent.release=\"${released:-unknown}\"" - "$tag" >/dev/null ||
        die "podman could not import the base image" "Check the free space of Podman's storage: podman info | grep graphRoot"
    note "made from Debian's release files of ${released:-an unknown date}"
}

note "fetching the base image $tag"
if ! problem=$(pull 2>&1 >/dev/null); then
    note "no registry gave it (${problem##*: })"
    bootstrap
fi
