#!/usr/bin/env bash
# What of the API has changed since a commit, and what of that breaks programs: api.sh COMMIT
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
module=$(go list -m)
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
go build -modfile=tools/api.mod -o "$temp/apidiff" golang.org/x/exp/cmd/apidiff
apidiff() { "$temp/apidiff" -m "$@" 2> >(grep -v '^Ignoring internal package' >&2); }

mkdir "$temp/then"
git archive "$1" | tar -x -C "$temp/then"
(cd "$temp/then" && apidiff -w "$temp/export" "$module")
changes=$(apidiff "$temp/export" "$module")
echo "${changes:-The API is that of $1.}"
