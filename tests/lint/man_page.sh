#!/usr/bin/env bash
# man_page.sh KDFS: docs/man/kdfs.1 is what the program says of itself.
set -euo pipefail
cd "$(dirname "$0")/../.."
if ! diff -u docs/man/kdfs.1 <("$1" help --man); then
    echo "docs/man/kdfs.1 is not up to date; run: kdfs help --man > docs/man/kdfs.1" >&2
    exit 1
fi
