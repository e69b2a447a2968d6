#!/usr/bin/env bash
# quickstart.sh: from a fresh clone to a mounted kdfs: sets up, builds, starts, shows.
# State is kept in $KDFS_STATE (default /var/tmp/kdfs-quickstart), the mount is $KDFS_MOUNT
# (default /kdfs).
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
-h | --help)
    sed -n '2,4s/^# //p' "$0"
    exit 0
    ;;
esac

state=${KDFS_STATE:-/var/tmp/kdfs-quickstart}
mount=${KDFS_MOUNT:-/kdfs}
kdfs=build/release/bin/kdfs

show() {
    echo
    echo "\$ $*"
    "$@"
}

tools/setup.sh
cmake --preset release >/dev/null
cmake --build --preset release --target kdfs_programs

show $kdfs up --state "$state" --mount "$mount"
show df -h "$mount"
show dd if=/dev/urandom of="$mount/hello.bin" bs=1M count=16 conv=fsync status=none
show ls -l "$mount"
show $kdfs where "$mount/hello.bin"
show $kdfs status --state "$state"

cat <<TXT

kdfs is mounted at $mount. What to try next:
  cp -r /usr/share/doc $mount/            use it like any file system
  $kdfs status --state $state    every node and target
  $kdfs top                           what is going on now
  $kdfs down --state $state      stop it; the files stay in $state
TXT
