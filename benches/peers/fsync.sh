#!/usr/bin/env bash
# Goal: to see that each peer's commits wait for the disk, and how often.
#
# Method: each peer runs twice under strace, with 10 and with 30 batches of updates. What the second run
# has more of, divided by 20, is what a batch takes: opening, loading and closing are the same in both.
# Syncs of background work are among them. `io_uring_enter` is how a peer that reads and writes through
# io_uring submits, waits and polls: it is no sync by itself, and how often it is called depends on how long
# all takes. For it the number is that of the whole second run. Give peers to run only these.
set -euo pipefail

command -v strace > /dev/null || { echo 'fsync.sh: strace is not installed' >&2; exit 1; }
cd "$(dirname "$0")"
program=$(cargo build --quiet --release --message-format=json |
    sed -nE 's/.*"executable":"([^"]+anwansi-peers)".*/\1/p')
[ -x "$program" ] || { echo 'fsync.sh: the program was not built' >&2; exit 1; }

calls=(fsync fdatasync sync_file_range msync io_uring_enter)
names=$(IFS=,; echo "${calls[*]}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ $# -eq 0 ]; then
    set -- anwansi-fjall anwansi-sled nomt commonware-current commonware-any jmt
fi

# Prints one number a call, in the order of `calls`: how often $1 makes it with $2 batches of updates.
counts() {
    strace -f -qq -c -U calls,name -o "$work/counts" -e trace="$names" \
        "$program" run --peer "$1" --dir "$work/$1-$2" \
        --keys 20000 --batch 1000 --updates $(($2 * 1000)) --gets 100 --proofs 10 > /dev/null
    for call in "${calls[@]}"; do
        awk -v call="$call" '$2 == call { n = $1 } END { print n + 0 }' "$work/counts"
    done
}

printf '| calls a batch |'
printf ' %s |' "${calls[@]:0:4}" 'io_uring_enter in all'
printf '\n|---|'
printf -- '---:|%.0s' "${calls[@]}"
echo
for peer in "$@"; do
    mapfile -t few < <(counts "$peer" 10)
    mapfile -t many < <(counts "$peer" 30)
    printf '| %s |' "$peer"
    for i in "${!calls[@]}"; do
        if [ "${calls[$i]}" = io_uring_enter ]; then
            printf ' %s |' "${many[$i]}"
        else
            awk -v few="${few[$i]}" -v many="${many[$i]}" \
                'BEGIN { printf " %.2f |", (many - few) / 20 }'
        fi
    done
    echo
done
