#!/usr/bin/env bash
# quickstart.sh: from a fresh clone to a mounted kdfs: sets up, builds, starts, shows.
# State is kept in $KDFS_STATE (default /var/tmp/kdfs-quickstart), the mount is $KDFS_MOUNT
# (default /kdfs, or ~/kdfs without root). Run it again to start what was stopped, with its data.
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
-h | --help)
    sed -n '2,4s/^# //p' "$0"
    exit 0
    ;;
"") ;;
*)
    echo "quickstart.sh takes no arguments; see tools/quickstart.sh --help" >&2
    exit 64
    ;;
esac

default_mount=/kdfs
[ "$(id -u)" = 0 ] || default_mount=$HOME/kdfs
state=${KDFS_STATE:-/var/tmp/kdfs-quickstart}
mount=${KDFS_MOUNT:-$default_mount}
kdfs=build/release/bin/kdfs

show() {
    echo
    echo "\$ $*"
    "$@"
}

tools/setup.sh
mkdir -p build
cmake --preset release >build/configure.log || {
    cat build/configure.log
    exit 1
}
cmake --build --preset release --target kdfs kdfs-mds kdfs-storage kdfs-fuse

show $kdfs doctor --dir "$state" || true
show $kdfs up --dir "$state" --mount "$mount"
show df -h "$mount"
show dd if=/dev/urandom of="$mount/hello.bin" bs=1M count=4 conv=fsync status=none
show ls -l "$mount"
show $kdfs where "$mount/hello.bin"
show $kdfs status --dir "$state"

cat <<TXT

kdfs is mounted at $mount. What to try next:
  cp -r /usr/share/doc $mount/      use it like any file system
  $kdfs status --dir $state    every node and target
  $kdfs fsck --dir $state      check all names and copies
  $kdfs down --dir $state      stop it; the files stay in $state
TXT
