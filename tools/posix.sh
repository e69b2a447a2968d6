#!/usr/bin/env bash
# posix.sh MOUNT [TEST...]: runs pjdfstest in a folder of MOUNT and prints the counts of its cases.
# TEST: files or folders below pjdfstest's tests/ (default: all). $PJDFSTEST is a tree of
# github.com/pjd/pjdfstest that is built (default: /var/tmp/kdfs-posix/pjdfstest). Needs root, since
# the tests change users. Exit status 0: all passed; 1: some failed, named with their numbers; 77:
# it could not run, with the reason. The whole output is left in posix.log of the current directory.
set -euo pipefail

skip() {
    echo "SKIP $1"
    exit 77
}

case "${1:-}" in
"" | -h | --help)
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0"
    [ -n "${1:-}" ] && exit 0
    exit 64
    ;;
esac

mount=$(realpath "$1")
shift
tree=$(realpath -m "${PJDFSTEST:-/var/tmp/kdfs-posix/pjdfstest}")
[ -x "$tree/pjdfstest" ] || skip "there is no built pjdfstest in $tree; see --help"
[ "$(id -u)" = 0 ] || skip "pjdfstest needs root"
command -v prove >/dev/null || skip "this machine has no prove (Debian: perl)"

log=$PWD/posix.log
folder=$mount/posix-$$
mkdir "$folder"
trap 'cd /; rm -rf "$folder"' EXIT
tests=("${@:-.}")
cd "$folder"
prove -r "${tests[@]/#/$tree/tests/}" >"$log" 2>&1 || true

# prove's summary: "Files=238, Tests=8827, ..." and per failed file "Failed tests:  1-3, 7".
perl -ne '
    $total = $1 if /^Files=\d+, Tests=(\d+)/;
    if (m{^(\S+/tests/(\S+\.t)) +\(Wstat}) { $file = $2; $bad{$file} = ""; }
    if ($file and /^  (Failed tests?|Parse errors): +(.*)/) { $bad{$file} .= " $1 $2"; $more = 1; }
    elsif ($file and $more and /^ +([\d, -]+)$/) { $bad{$file} .= ", $1"; }
    elsif (!/^  /) { $more = 0; }
    END {
        die "posix.sh: prove gave no summary; see '"$log"'\n" unless defined $total;
        for $f (sort keys %bad) {
            $count = 0;
            ($list) = $bad{$f} =~ /Failed tests? ([\d, -]+)/;
            for (split /[, ]+/, $list // "") {
                $count += /(\d+)-(\d+)/ ? $2 - $1 + 1 : /\d/ ? 1 : 0;
            }
            $failed += $count;
            print "  $f: $count:$bad{$f}\n";
        }
        $failed //= 0;
        printf "pjdfstest: %d cases, %d passed, %d failed (%.2f %% passed), in %d files failures\n",
            $total, $total - $failed, $failed, 100 * ($total - $failed) / ($total || 1),
            scalar keys %bad;
        exit($failed || %bad ? 1 : 0);
    }' "$log"
