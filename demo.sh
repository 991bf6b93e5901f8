#!/bin/sh
# Shows highwater at work on real data: successive snapshots of the companies that have network
# hardware addresses, 34,503 to 53,730 records.
#
#   1. downloads three versions of the package `oui-data` with npm into target/demo-data, once;
#   2. builds the `highwater` command;
#   3. runs `highwater demo` on the snapshots, in a temporary store, which checks its own result.
#
# Without npm, tar or a network it runs on a small sample of the same data in data/.
# Arguments are passed on to `highwater demo`, such as `--store DIR` to keep the store.
set -eu
cd "$(dirname "$0")"

data=target/demo-data
versions="1.0.10 1.1.396 2.1.9"

# Downloads one version, unless it is there already. The package's only content is index.json.
fetch() {
    json="$data/oui-data-$1.json"
    [ -s "$json" ] && return 0
    echo "   oui-data $1"
    npm pack --silent --fetch-retries=1 --fetch-timeout=60000 \
        --pack-destination "$data" "oui-data@$1" >/dev/null &&
        tar -xzOf "$data/oui-data-$1.tgz" package/index.json >"$json.part" &&
        mv "$json.part" "$json" &&
        rm -f "$data/oui-data-$1.tgz"
}

fetch_all() {
    for tool in npm tar; do
        command -v "$tool" >/dev/null || {
            echo "   $tool is not installed"
            return 1
        }
    done
    mkdir -p "$data" || return 1
    for version in $versions; do
        fetch "$version" || {
            echo "   oui-data $version could not be downloaded"
            return 1
        }
    done
}

echo "Real data: three versions of the npm package oui-data, in $data"
if fetch_all; then
    # The last step goes back to the second snapshot: a provider that takes its newest data back,
    # so that there are deletions by the thousand too.
    set -- "$data/oui-data-1.0.10.json" "$data/oui-data-1.1.396.json" \
        "$data/oui-data-2.1.9.json" "$data/oui-data-1.1.396.json" "$@"
else
    echo "   so the demo runs on the sample in data/"
fi

echo "Building (the first time takes a minute or two)"
cargo build --quiet --release --features cli
exec cargo run --quiet --release --features cli -- demo "$@"
