#!/bin/bash
# The release as a good shell script: unpack once here, send what differs, hard-link the rest,
# switch by one rename, restart, wait for the new version. All hosts at once.
# Usage: rsync_deploy.sh ARTIFACT VERSION HOST...
# with ROOT, UNIT, URL, SSH_CONFIG, AT_ONCE, FLAGS set
set -euo pipefail
artifact=$1 version=$2
shift 2
scratch=$(mktemp -d)
sockets=$(mktemp -d -p /tmp) # their names have to be short
trap 'rm -rf "$scratch" "$sockets"' EXIT
mkdir "$scratch/tree"
tar -xzf "$artifact" -C "$scratch/tree"

deploy_one() {
  local host=$1
  local ssh="ssh -F $SSH_CONFIG -o ControlMaster=auto -o ControlPersist=yes"
  ssh+=" -o ControlPath=$sockets/%n"
  # The first command opens the connection that the others share.
  $ssh "$host" "sudo mkdir -p $ROOT/releases"
  # shellcheck disable=SC2086 # FLAGS are words
  rsync $FLAGS --rsync-path='sudo rsync' --link-dest="$ROOT/current/" -e "$ssh" \
    "$scratch/tree/" "$host:$ROOT/releases/$version/"
  $ssh "$host" "sudo sh -c '
    ln -sfn releases/$version $ROOT/current.new && mv -T $ROOT/current.new $ROOT/current &&
    systemctl restart $UNIT &&
    for try in \$(seq 50); do
      curl -fsS $URL 2>/dev/null | grep -q \"\\\"$version\\\"\" && exit 0
      sleep 0.2
    done
    exit 1'"
  $ssh -O exit "$host" 2>/dev/null || true
}
export -f deploy_one
export scratch sockets version
# ssh fails with 255, at which xargs would stop with the other hosts half-way.
printf '%s\n' "$@" | xargs -P "$AT_ONCE" -I '{}' bash -Eeuc 'trap "exit 1" ERR; deploy_one {}'
