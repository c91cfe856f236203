#!/usr/bin/env bash
# Takes the service away that scripts/install-service.sh has made. Data stay unless you say otherwise.
#   sudo ./scripts/uninstall.sh [--purge] [--yes] [--dry-run]
#     --purge     remove the data too, after a question: the server's state, its rooms' files and containers, the homeserver
#                 with all its accounts and messages, and the settings. Backups stay.
#     --yes       do not ask
#     --dry-run   only say what would be done
# Without --purge the settings stay in /etc/matrix-agent (but for the lines that were written there for the service, unless a
# package's service has the same settings), the state in /var/lib/matrix-agent, and the homeserver's volume in Podman:
# scripts/install-service.sh goes on with them.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

HOMESERVER=${SYNAPSE_NAME:-matrix-agent-synapse}
purge='' yes=''
while (($# > 0)); do
    case $1 in
        --purge) purge=yes ;;
        --yes) yes=yes ;;
        --dry-run) DRY_RUN=yes ;;
        -h | --help) show_help && exit 0 ;;
        *) die "$1 is not known" "scripts/uninstall.sh --help lists the options" ;;
    esac
    shift
done
if [[ $EUID -eq 0 ]]; then
    etc=/etc/matrix-agent own=/var/lib/matrix-agent units=/etc/systemd/system quadlets=/etc/containers/systemd
    control=(systemctl) share=/usr/local/share library=/usr/local/lib/matrix-agent run=/run
    files=(/usr/local/bin/matrix-agent{,.previous,.new,.redeploying} "$library")
else
    etc=${XDG_CONFIG_HOME:-$HOME/.config}/matrix-agent units=${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user
    own=${XDG_STATE_HOME:-$HOME/.local/state}/matrix-agent quadlets=${XDG_CONFIG_HOME:-$HOME/.config}/containers/systemd
    control=(systemctl --user) share=${XDG_DATA_HOME:-$HOME/.local/share} run=${XDG_RUNTIME_DIR:-/run/user/$UID}
    library=$share/matrix-agent
    files=("$HOME/.local/bin/matrix-agent"{,.previous,.new,.redeploying} "$library")
    [[ -n $DRY_RUN || -n $purge || -e $units/matrix-agent.service ]] || die "you have no service of your own" "For the system's: sudo scripts/uninstall.sh"
fi
# The service has its state where install-service.sh demands it; only a server without one may have it elsewhere.
state=$own
[[ -e $units/matrix-agent.service ]] || state=$(state_dir)
if [[ -n $purge && -e $state && $state != "$own" ]]; then
    fault=$(state_fault "$state")
    [[ -z $fault ]] || die "STATE_DIR is $state, which $fault, so it is not removed" "Say where the server's state is: STATE_DIR=/path scripts/uninstall.sh --purge"
fi
# Only a unit of these scripts is stopped here; a package's server, or one that was started by hand, has to end before anything goes.
free() { ! taken "$state" || die "a server runs on $state (process $(<"$state/lock"))" "Stop it: systemctl stop matrix-agent, or kill it"; }
if [[ -n $purge ]] && ! { [[ -e $units/matrix-agent.service ]] && "${control[@]}" --quiet is-active matrix-agent.service 2>/dev/null; }; then free; fi
if [[ -n $purge && -z $yes && -z $DRY_RUN ]]; then
    printf 'This removes for ever: %s (conversations, rooms'"'"' files, keys), %s, and the homeserver %s with all its messages.\n' "$state" "$etc" "$HOMESERVER"
    [[ -t 0 ]] || die "nobody is there to be asked" "Say --yes, if you are sure"
    read -r -p "Type \`purge\` to go on: " answer
    [[ $answer == purge ]] || die "nothing was removed" "Run it again to be asked again"
fi

here=()
for unit in matrix-agent.service matrix-agent-{backup,images}.{timer,service} matrix-agent-redeploy.{path,service} matrix-agent-podman.{socket,service} synapse.service synapse-db.service; do
    [[ ! -e $units/$unit ]] || here+=("$unit")
done
if [[ ${#here[@]} -gt 0 ]]; then
    change "stop ${here[*]}" "${control[@]}" --quiet disable --now "${here[@]}"
fi
if [[ -e $quadlets/synapse.container ]]; then
    change "stop synapse.service" "${control[@]}" stop synapse.service
    files+=("$quadlets/synapse.container")
fi
files+=("${here[@]/#/$units/}" "$units"/matrix-agent{,-images}.service.d/10-synapse.conf "$units"/synapse.service.d/10-database.conf)
# A package's service goes on with the same settings, and with the Podman of its own that they name.
packaged=''
[[ $EUID -ne 0 || -n $purge || ! -e /usr/lib/systemd/system/matrix-agent.service ]] || packaged=yes
[[ -n $packaged ]] || files+=("$run/matrix-agent-podman")
# What systemd notes of when a timer last ran counts for the package's timers, too.
[[ $EUID -ne 0 || -n $packaged ]] || files+=(/var/lib/systemd/timers/stamp-matrix-agent-{backup,images}.timer)
# A runtime that goes with these scripts is of no use to it either.
[[ -n $packaged ]] && ! grep -qsF "=$library/" "$etc/podman.env" || files+=("$etc/podman.env")

# The settings stay for a server that is no service, which would look where nobody listens.
if [[ -z $purge && -z $packaged && -e $etc/.env ]]; then
    ENV_FILE=$etc/.env
    unsettle_service "$units/matrix-agent.service"
fi
# Without its runtime Podman could neither stop a sandbox nor remove it.
gvisor=$library/scripts/gvisor/runsc
if have podman && [[ -e $gvisor && -n $(run_by "$gvisor") ]]; then
    change "remove the containers of sandboxes that gVisor runs; their files stay" remove_run_by "$gvisor"
fi
for file in "${files[@]}"; do
    [[ ! -e $file ]] || change "remove $file" take_out "$file"
done
mapfile -t helps < <(help_files "$share")
remove_helps() { for file in "${helps[@]}"; do take_out "$file"; done; }
[[ ${#helps[@]} -eq 0 ]] || change "remove what shells complete, and the manual pages, below $share" remove_helps
[[ ! -d /run/systemd/system ]] || change "have systemd read its units" "${control[@]}" daemon-reload

# The sandboxes live on without a server; the next one finds them.
if [[ -z $purge ]]; then
    [[ -z $packaged ]] || note "the package's service is here still: systemctl enable --now matrix-agent (and matrix-agent-podman.socket, if SANDBOX_RUNTIME is set) starts it"
    note "kept: $state, $etc$(! have podman || ! podman volume exists "$HOMESERVER" || printf ', the volume %s' "$HOMESERVER")"
    exit 0
fi

free # one may have started meanwhile
sandboxes() {
    local one
    remove_sandboxes "$1" "$state"
    for one in $(podman volume ls --quiet --filter "label=matrix-agent.instance=$1"); do
        [[ $(podman volume inspect --format '{{index .Options "device"}}' "$one") != "$(realpath -m -- "$state")"/* ]] ||
            podman volume rm "$one" >/dev/null
    done
    # Those that are in use are another server's with the same database.
    podman volume ls --quiet --filter "label=matrix-agent.ipc=$1" | xargs -r podman volume rm >/dev/null 2>&1 || true
}
# With it goes what scripts/restore.sh has put aside.
homeserver() {
    podman rm --force --ignore --time 10 "$HOMESERVER" "$HOMESERVER-db" >/dev/null
    podman volume ls --quiet | grep -E "^${HOMESERVER//./\\.}(-before-restore-.*)?\$" | xargs -r podman volume rm >/dev/null
}
if have podman; then
    [[ ! -e $state/matrix-agent.db ]] || have sqlite3 ||
        die "sqlite3 is not installed, so it is not known which containers are this server's" "Run: apt-get install sqlite3"
    instance=$(instance_of "$state")
    [[ -z $instance ]] || change "remove the sandboxes of this server" sandboxes "$instance"
    ! podman volume exists "$HOMESERVER" || change "remove the homeserver $HOMESERVER with its volume" homeserver
fi
# The link that install-service.sh has left.
clone=$(sed -n 's/^UPDATE_SOURCE=//p' "$etc/update.env" 2>/dev/null || true)
if [[ -n $clone && -L $clone/.env && $(readlink "$clone/.env") == "$etc/.env" ]]; then
    change "remove the link $clone/.env" rm -f "$clone/.env"
fi
# The link that quickstart.sh has left, by which commands find the settings of this clone.
link=${XDG_CONFIG_HOME:-$HOME/.config}/matrix-agent/.env
if [[ -L $link && $(readlink -- "$link") == "$REPO/.env" ]]; then
    change "remove the link $link" rm -f -- "$link"
fi
logs=()
[[ $EUID -ne 0 ]] || logs=(/var/log/matrix-agent)
for one in "$state" "$etc" "$run/matrix-agent" "${logs[@]}"; do
    linked=''
    [[ ! -L $one ]] || linked=$(readlink -f -- "$one")
    [[ ! -e $one ]] || change "remove $one${linked:+, which is $linked}" with_ids rm -rf -- "$one" ${linked:+"$linked"}
done
if [[ $EUID -eq 0 ]]; then
    note "kept, since others may need them: podman.socket, /etc/containers, and the user ids of \`containers\` in /etc/subuid and /etc/subgid"
fi
note "backups, packages, Podman's images and the accounts' clients are as they were"
