#!/usr/bin/env bash
# setup_libfuse.sh: gives the build a libfuse >= 3.18 (epoch notifications, statx) that lets a
# program carry the replies itself ("custom io", which kdfs-fuse needs for FUSE over io_uring),
# where the system's is older or was built without it.
# Builds Debian's own newer source package into a private prefix; the system's libfuse is left as
# it is.
# Idempotent; needs root. On any failure it says why in one line and exits 0: the build then uses
# the system's libfuse.
#   KDFS_FUSE_PREFIX    where to install (default /opt/kdfs/libfuse)
#   KDFS_FUSE_EXAMPLES  also build libfuse's examples into this directory (default: no)
# To use it: PKG_CONFIG_PATH=$KDFS_FUSE_PREFIX/lib/pkgconfig (searched before the system's
# directories).
# Its fuse3.pc carries an rpath, so a program linked through pkg-config finds the library at run
# time.
set -uo pipefail

min=3.18
prefix=${KDFS_FUSE_PREFIX:-/opt/kdfs/libfuse}
pcdir=$prefix/lib/pkgconfig
examples=${KDFS_FUSE_EXAMPLES:-}
work=

cleanup() { if [ -n "$work" ]; then rm -rf "$work"; fi; }
trap cleanup EXIT

give_up() {
  echo "setup_libfuse: $1; the system's libfuse (${system:-none}) will be used"
  exit 0
}
at_least() { [ -n "$1" ] && dpkg --compare-versions "$1" ge "$min"; }
# custom_io [PKGCONFIG_DIR]: true if the libfuse found there (else the system's) is built with it.
custom_io() {
  local dir source flags ok=1
  dir=$(mktemp -d /var/tmp/setup_libfuse.XXXXXX) || return 1
  source=$dir/try.c
  cat > "$source" <<'C'
#define _FILE_OFFSET_BITS 64
#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>
#include <fcntl.h>
static ssize_t send(int fd, struct iovec *v, int n, void *u) {
    return fd + n + (v != 0) + (u != 0);
}
static ssize_t receive(int fd, void *p, size_t n, void *u) {
    return fd + n + (p != 0) + (u != 0);
}
int main(void) {
    static const struct fuse_lowlevel_ops ops;
    static const struct fuse_custom_io io = {.writev = send, .read = receive};
    char *words[] = {"try", 0};
    struct fuse_args args = FUSE_ARGS_INIT(1, words);
    struct fuse_session *session = fuse_session_new(&args, &ops, sizeof ops, 0);
    return session == 0 || fuse_session_custom_io(session, &io, open("/dev/null", O_RDWR)) != 0;
}
C
  # shellcheck disable=SC2086
  flags=$(PKG_CONFIG_PATH=${1:-} pkg-config --cflags --libs fuse3 2>/dev/null) &&
    cc -o "$dir/try" "$source" $flags 2>/dev/null && "$dir/try" 2>/dev/null && ok=0
  rm -rf "$dir"
  return $ok
}

system=$(pkg-config --modversion fuse3 2>/dev/null || true)
private=$(PKG_CONFIG_LIBDIR=$pcdir PKG_CONFIG_PATH='' \
  pkg-config --modversion fuse3 2>/dev/null || true)
if [ -z "$examples" ] || [ -x "$examples/passthrough_hp" ]; then
  if at_least "$private" && custom_io "$pcdir"; then
    echo "setup_libfuse: libfuse $private is already in $prefix"; exit 0
  fi
  if [ -z "$private" ] && at_least "$system" && custom_io; then
    echo "setup_libfuse: the system's libfuse is $system, nothing to do"; exit 0
  fi
fi

[ "$(id -u)" = 0 ] || give_up "not root"
command -v apt-get >/dev/null || give_up "no apt-get on this machine"
work=$(mktemp -d /var/tmp/setup_libfuse.XXXXXX) || give_up "no temporary directory"
chmod 755 "$work"   # apt's unprivileged user reads here
log=$work/log
export DEBIAN_FRONTEND=noninteractive

# The machine's own Debian mirror, as apt is configured: deb822 first, then one-line lists.
mirror=$(awk '/^URIs:/ {print $2; exit}' /etc/apt/sources.list.d/*.sources 2>/dev/null || true)
[ -f /etc/apt/sources.list.d/debian.sources ] &&
  mirror=$(awk '/^URIs:/ {print $2; exit}' /etc/apt/sources.list.d/debian.sources)
if [ -z "$mirror" ]; then
  mirror=$(awk '/^deb /{for (i=2;i<=NF;i++) if ($i ~ /:\/\//) {print $i; exit}}' \
    /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null || true)
fi
[ -n "$mirror" ] || give_up "no Debian mirror in apt's configuration"

# Build dependencies, from the machine's ordinary suites. liburing and libnuma: without both,
# libfuse is built without io_uring.
need=()
for p in gcc meson ninja-build pkg-config dpkg-dev xz-utils liburing-dev libnuma-dev; do
  dpkg-query -W -f='${db:Status-Status}\n' "$p" 2>/dev/null | grep -qx installed || need+=("$p")
done
if [ ${#need[@]} -gt 0 ]; then
  apt-get install -y -qq --no-install-recommends "${need[@]}" >"$log" 2>&1 ||
    { apt-get update -qq &&
        apt-get install -y -qq --no-install-recommends "${need[@]}"; } >"$log" 2>&1 ||
    give_up "could not install ${need[*]}"
fi

# A source list of our own, with its own state: apt's configuration and lists are not touched.
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/src"
codename=$(. /etc/os-release; echo "${VERSION_CODENAME:-}")
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
signed=; [ -f "$keyring" ] && signed="[signed-by=$keyring] "
apt_opts=(-o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
          -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache")
version=
for suite in "$codename-backports" testing unstable; do
  echo "deb-src $signed$mirror $suite main" > "$work/sources.list"
  timeout 40 apt-get "${apt_opts[@]}" update -qq >"$log" 2>&1 || continue
  for v in $(apt-cache "${apt_opts[@]}" showsrc fuse3 2>/dev/null |
      awk '/^Version:/ {print $2}' | sort -rV); do
    if at_least "$v"; then version=$v; break; fi
  done
  [ -z "$version" ] || break
done
[ -n "$version" ] || give_up "no Debian suite within reach has libfuse >= $min"

( cd "$work/src" && timeout 60 apt-get "${apt_opts[@]}" -o APT::Sandbox::User=root \
    source -qq "fuse3=$version" ) >"$log" 2>&1 ||
  give_up "could not fetch the source of fuse3 $version"
src=$(find "$work/src" -mindepth 1 -maxdepth 1 -type d | head -1)
[ -f "$src/meson.build" ] || give_up "the source of fuse3 $version has no meson.build"

options=(--buildtype=release --libdir=lib -Db_ndebug=false -Dutils=false -Dtests=false
  -Duseroot=false)
if ! at_least "$private" || ! custom_io "$pcdir"; then
  if grep -qs enable-custom-io "$src"/meson_options.txt "$src"/meson.options; then
    options+=(-Denable-custom-io=true)
  fi
  # Built aside and swapped in whole, so that a failure never leaves half a prefix.
  meson setup "$work/build" "$src" --prefix="$prefix" "${options[@]}" \
    -Dexamples=false >"$log" 2>&1 &&
    ninja -C "$work/build" >"$log" 2>&1 ||
    give_up "libfuse $version does not build: $(grep -m1 -iE 'error' "$log" | cut -c1-160)"
  DESTDIR=$work/root ninja -C "$work/build" install >"$log" 2>&1 ||
    give_up "libfuse $version does not install"
  new=$work/root$prefix
  sed -i 's|^Libs: |Libs: -Wl,-rpath,${libdir} |' "$new/lib/pkgconfig/fuse3.pc"
  grep -q -- '-rpath' "$new/lib/pkgconfig/fuse3.pc" ||
    give_up "libfuse $version has an unexpected fuse3.pc"
  rm -rf "$prefix.new" && mkdir -p "$(dirname "$prefix")" && cp -a "$new" "$prefix.new" &&
    rm -rf "$prefix" && mv "$prefix.new" "$prefix" || give_up "could not write $prefix"
fi

# The product of all this: a program must build, link and run against it, even with an older
# libfuse3-dev installed.
cat > "$work/try.c" <<'C'
#define FUSE_USE_VERSION 318
#include <fuse_lowlevel.h>
#include <stdio.h>
int main(void) {
    printf("%s %d\n", fuse_pkgversion(), fuse_lowlevel_notify_increment_epoch != 0);
    return 0;
}
C
flags=$(PKG_CONFIG_PATH=$pcdir pkg-config --cflags --libs fuse3)
# shellcheck disable=SC2086
if ! cc -o "$work/try" "$work/try.c" $flags >"$log" 2>&1 ||
   ! got=$("$work/try" 2>>"$log") || ! at_least "${got%% *}"; then
  rm -rf "$prefix"
  give_up "libfuse $version in $prefix is not usable"
fi
uring=without
if ldd "$prefix/lib/libfuse3.so" | grep -q liburing; then uring=with; fi

if [ -n "$examples" ]; then
  meson setup "$work/build-ex" "$src" --prefix="$prefix" "${options[@]}" \
    -Dexamples=true >"$log" 2>&1 &&
    ninja -C "$work/build-ex" example/passthrough_hp example/passthrough_ll \
      example/hello_ll >"$log" 2>&1 &&
    mkdir -p "$examples" &&
    cp "$work"/build-ex/example/{passthrough_hp,passthrough_ll,hello_ll} "$examples/" ||
    echo "setup_libfuse: the examples did not build"
fi
echo "setup_libfuse: libfuse ${got%% *} ($uring io_uring) is in $prefix"
