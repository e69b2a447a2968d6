#!/usr/bin/env bash
# test.sh [TARGET] [CTEST ARGUMENT...]: sets the machine up, builds, and runs the tests of a target.
#
#   default   everything below up to lint: unit, contract and sim under ASan + UBSan, e2e on release
#   unit      unit and contract tests (ASan + UBSan)
#   sim       simulated clusters (ASan + UBSan)
#   e2e       real daemons and mounts (release build)
#   lint      tools/tidy.py, its own test, and that every header compiles alone
#   release   all tests on the release build
#   tsan      ThreadSanitizer: unit tests of base, rt and rpc, all contract tests
#   clang     build with clang++ and clang-tidy, then unit and contract tests
#   fuzz      [SECONDS [NAME...]]: libFuzzer on each target of tests/fuzz (clang++), 60 s by default
#   long      fsx with 200,000 operations on 5 seeds, memory with a million files, hundreds of
#             faults on real mounts: some hours
#   mutants   [NAME...]: breaks each rule of tests/mutants.txt and shows which test notices
#   sweep     KDFS_SWEEP_SEEDS (default 200) more seeds of kdfs-sim under each mix of faults, the
#             full one also with fault points and flipped bits or harsh; the commit names the first
#
# The last lines are ctest's summary. Further arguments go to ctest: tools/test.sh unit -R Codec
# KDFS_JOBS: parallel build and test jobs (default: 2 tests, as many compilations as processors).
set -euo pipefail
cd "$(dirname "$0")/.."

build() { # PRESET [TARGET...]
    cmake --preset "$1" >build/configure.log || {
        cat build/configure.log
        exit 1
    }
    cmake --build --preset "$1" ${KDFS_JOBS:+-j "$KDFS_JOBS"} ${2:+--target "${@:2}"}
}

# One ctest run, and so one summary, over folders of several builds.
run_tests() { # FOLDER... below build/, then -- and ctest's arguments
    local folders=()
    while [ "$1" != -- ]; do
        folders+=("subdirs(\"$PWD/build/$1\")")
        shift
    done
    shift
    printf '%s\n' "${folders[@]}" >"build/run-$target/CTestTestfile.cmake"
    ${runner:-} ctest --test-dir "build/run-$target" -j "${KDFS_JOBS:-2}" --output-on-failure \
        --no-tests=error "$@"
}

sweep() { # runs kdfs-sim over many seeds; stops at the first that fails and says how to replay it
    local seeds=${KDFS_SWEEP_SEEDS:-200} first mix
    first=$((16#$(git rev-parse --short=8 HEAD)))
    for mix in basic full "full --points --flips" "full --points --harsh"; do
        # An exit code of 255 ends xargs.
        seq "$first" 50 $((first + seeds - 1)) |
            xargs -P "${KDFS_JOBS:-$(nproc)}" -I FROM bash -c '
                last=$((FROM + 49 < $1 ? FROM + 49 : $1))
                # shellcheck disable=SC2086 # several words
                build/release/bin/kdfs-sim --mix $0 --chains 8 --seeds FROM..$last \
                    >"build/sweep-FROM.log" 2>&1 || { tail -n 40 "build/sweep-FROM.log"; exit 255; }
                rm "build/sweep-FROM.log"' "$mix" $((first + seeds - 1)) || {
            echo "sweep: failed; the lines above say how to replay it"
            exit 1
        }
        echo "sweep: $seeds seeds from $first passed under --mix $mix"
    done
}

fuzz() { # [SECONDS [NAME...]]: stops at the first finding and says how to replay it
    local seconds=${1:-60} names name found
    shift || true
    names=("$@")
    [ $# -ne 0 ] || mapfile -t names < <(ls tests/fuzz/corpus)
    for name in "${names[@]}"; do
        mkdir -p "build/fuzz-corpus/$name" "build/fuzz-found/$name"
        # What is written first is where new inputs go.
        if ! "build/fuzz/bin/kdfs-fuzz-$name" -max_total_time="$seconds" -timeout=25 \
            -rss_limit_mb=1024 -malloc_limit_mb=64 -max_len=65536 -print_final_stats=1 \
            -artifact_prefix="build/fuzz-found/$name/" "build/fuzz-corpus/$name" \
            "tests/fuzz/corpus/$name" >"build/fuzz-$name.log" 2>&1; then
            tail -n 60 "build/fuzz-$name.log"
            found=$(sed -n 's/.*Test unit written to //p' "build/fuzz-$name.log" | tail -n 1)
            echo "fuzz: $name failed; replay with: build/fuzz/bin/kdfs-fuzz-$name $found"
            exit 1
        fi
        echo "fuzz: $name," \
            "$(sed -n 's/stat::number_of_executed_units: *//p' "build/fuzz-$name.log") inputs in" \
            "$seconds s, no finding"
    done
}

target=${1:-default}
[ $# -eq 0 ] || shift
case "$target" in
-h | --help)
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0"
    exit 0
    ;;
default | unit | sim | e2e | lint | release | tsan | clang | fuzz | long | mutants | sweep) ;;
*)
    echo "test.sh: there is no target '$target'; see tools/test.sh --help" >&2
    exit 2
    ;;
esac

tools/setup.sh
mkdir -p "build/run-$target"
case "$target" in
default)
    build asan
    build release kdfs_programs
    run_tests asan/tests/{lint,unit,contract,sim} release/tests/e2e -- "$@"
    ;;
unit)
    build asan
    run_tests asan/tests/{unit,contract} -- "$@"
    ;;
sim)
    build asan
    run_tests asan/tests/sim -- "$@"
    ;;
e2e)
    build release kdfs_programs
    run_tests release/tests/e2e -- "$@"
    ;;
lint)
    build asan kdfs_programs
    run_tests asan/tests/lint -- "$@"
    ;;
release)
    build release
    run_tests release/tests -- "$@"
    ;;
tsan)
    # Where OS threads meet; the rest runs on one loop.
    build tsan kdfs_unit_base kdfs_unit_rt kdfs_unit_rpc kdfs_contract
    # g++ 12's ThreadSanitizer does not start under the address randomisation of newer kernels.
    runner="setarch -R" run_tests tsan/tests/{unit,contract} -- \
        -R '^kdfs_(unit_(base|rt|rpc)|contract)\.' "$@"
    ;;
clang)
    build clang
    run_tests clang/tests/{unit,contract} -- "$@"
    ;;
long)
    build release kdfs_programs
    run_tests release/tests/e2e -- -C long -L long "$@"
    ;;
fuzz)
    build fuzz
    fuzz "$@"
    ;;
mutants)
    build mutants
    tools/mutants.py build/mutants "$@"
    ;;
sweep)
    build release kdfs_programs
    sweep
    ;;
esac
