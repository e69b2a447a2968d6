#!/usr/bin/env bash
# setup.sh: installs what kdfs needs to build, test and run (Debian 12 or newer, Ubuntu 24.04).
# Does nothing, at once, where nothing is missing. Needs root or sudo only to install.
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
-h | --help)
    sed -n '2,3s/^# //p' "$0"
    exit 0
    ;;
esac

packages=(
    # build
    cmake ninja-build g++ ccache mold lld pkg-config git python3 perl meson protobuf-compiler
    # lint and second compiler
    clang clang-tidy clang-format libclang-rt-dev
    # libraries
    fuse3 libfuse3-dev librocksdb-dev liburing-dev libxxhash-dev libboost-program-options-dev
    libprotobuf-dev libssl-dev nlohmann-json3-dev libspdlog-dev libjemalloc-dev
    # tests
    libgtest-dev libgmock-dev attr acl fio iproute2 nftables sqlite3 util-linux procps
)

for tool in dpkg-query apt-get; do
    if ! command -v $tool >/dev/null; then
        echo "setup: this machine has no $tool: only Debian and its relatives are supported." >&2
        echo "setup: install the equivalents of: ${packages[*]}" >&2
        exit 1
    fi
done

missing_packages() {
    dpkg-query -W -f='${db:Status-Status} ${Package}\n' "${packages[@]}" 2>/dev/null |
        awk '$1 == "installed" {print $2}' | sort >"$1"
    printf '%s\n' "${packages[@]}" | sort | comm -23 - "$1"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "setup: '$*' needs root: run tools/setup.sh as root, or install sudo" >&2
        exit 1
    fi
}

list=$(mktemp)
trap 'rm -f "$list"' EXIT
missing=$(missing_packages "$list" || true)
if [ -n "$missing" ]; then
    # shellcheck disable=SC2086  # a list of words
    set -- $missing
    echo "setup: installing $*"
    install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@")
    # The package lists may be absent or stale, so a first failure is answered by an update.
    as_root "${install[@]}" >/dev/null 2>&1 || {
        as_root apt-get update -qq
        as_root "${install[@]}" >/dev/null
    }
    missing=$(missing_packages "$list" || true)
    if [ -n "$missing" ]; then
        echo "setup: still missing after the installation:" $missing >&2
        exit 1
    fi
fi

# A libfuse with all that kdfs-fuse can use, where the system's is older; kdfs runs without it.
if [ -x tools/setup_libfuse.sh ]; then
    tools/setup_libfuse.sh
fi
echo "setup: complete"
