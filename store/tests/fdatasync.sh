#!/usr/bin/env bash
# Goal: no local engine acknowledges a batch before an fsync or fdatasync of the file that holds it.
#
# Method: the child of engines.rs writes batches one at a time under strace. In the trace, between
# any two acknowledgements, there must be a write to the engine's data file and after it a sync of
# the same file that has returned 0. Fails if strace is missing. Run it from anywhere.
set -euo pipefail

batches=40
# Each engine with the data file that a sync must name, relative to the store's directory.
engines=(
    'fjall fjall/[0-9]+[.]jnl'
    'sled sled/db'
)

command -v strace > /dev/null || { echo 'fdatasync.sh: strace is not installed' >&2; exit 1; }
cd "$(dirname "$0")/.."
child=$(cargo test --quiet --test engines --no-run --message-format=json |
    sed -nE 's/.*"name":"engines".*"executable":"([^"]+)".*/\1/p')
[ -x "$child" ] || { echo 'fdatasync.sh: the test was not built' >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for engine in "${engines[@]}"; do
    read -r name file <<< "$engine"
    # -y names the file of each descriptor, so that the sync of another file does not count.
    ANWANSI_TEST_URL="$name:$work/$name" ANWANSI_TEST_BATCHES=$batches ANWANSI_TEST_IN_FLIGHT=1 \
        strace -f -qq -y -s 32 -o "$work/$name.trace" \
        -e trace=write,pwrite64,writev,pwritev,fsync,fdatasync \
        "$child" --exact child::child --nocapture --test-threads=1 > /dev/null

    awk -v name="$name" -v file="<$work/$name/$file>" -v batches="$batches" '
        # A call that another thread interrupts is in two lines: its file in the first, its result
        # in the second. It has happened only at the second.
        {
            process = $1
            start = index($0, " <unfinished ...>")
            if (start) { half[process] = substr($0, 1, start - 1); if ($0 !~ /acknowledged/) next }
            else if ($0 ~ /<[.][.][.] [a-z0-9]+ resumed>/) {
                sub(/.*resumed>/, "")
                $0 = half[process] $0
            }
        }
        $0 ~ "write[v64]*[(][0-9]+" file && / = [1-9][0-9]*$/ { written = 1; synced = 0 }
        $0 ~ "(fsync|fdatasync)[(][0-9]+" file "[)] += 0$" { syncs++; if (written) synced = 1 }
        /write[(]1<.*"acknowledged [0-9]+/ {
            # Both halves of an interrupted one match: it counts at the first, the earlier.
            match($0, /acknowledged [0-9]+/)
            number = substr($0, RSTART + 13, RLENGTH - 13) + 0
            if (number == last) next
            last = number
            if (!synced) { print name ": batch " number " acknowledged before it was synced"; bad++ }
            written = synced = 0
        }
        END {
            if (last != batches) { print name ": " last + 0 " of " batches " acknowledged"; bad++ }
            if (bad) exit 1
            print name ": " batches " batches acknowledged, each after one of " syncs " syncs"
        }
    ' "$work/$name.trace"
done
