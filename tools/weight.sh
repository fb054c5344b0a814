#!/usr/bin/env bash
# What a program takes on with this package: modules, lines of go.sum, bytes of the binary; beside the same program
# over nats.go, and over Consul's client. It needs the module proxy, and a minute.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
module=$(go list -m)
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT

# program NAME REQUIREMENT IMPORTS STATEMENT
program() {
	rm -rf "$temp"/*
	cd "$temp"
	printf 'package main\n\nimport (%s)\n\nfunc main() { %s }\n' "$3" "$4" >main.go
	go mod init weight 2>/dev/null
	go mod edit -replace "$module=$root"
	[ -z "$2" ] || go mod edit -require "$2"
	go mod tidy 2>/dev/null
	go build -trimpath -ldflags '-s -w' -o program .
	printf '| %s | %d | %d | %d | %s MB |\n' "$1" "$(go version -m program | grep -c '^	dep' || true)" \
		"$(go list -m all | tail -n +2 | wc -l)" "$(cat go.sum 2>/dev/null | wc -l)" "$(wc -c <program | awk '{printf "%.1f", $1 / 1e6}')"
	cd "$root"
}

at() { go list -m -f '{{.Path}}@{{.Version}}' "$1"; }
nats=$(at github.com/nats-io/nats.go) consul=$(at github.com/hashicorp/consul/api)

echo '| Program | Modules linked | Modules known | Lines of go.sum | Binary |'
echo '|---|---|---|---|---|'
program 'nothing' '' '"net/http"' '_ = http.ListenAndServe("", nil)'
program 'nats.go' "$nats" '"github.com/nats-io/nats.go"; "github.com/nats-io/nats.go/jetstream"' \
	'nc, _ := nats.Connect(""); _, _ = jetstream.New(nc)'
program "Consul's client" "$consul" '"github.com/hashicorp/consul/api"' '_, _ = api.NewClient(api.DefaultConfig())'
program 'this package' '' "\"$module\"" '_, _ = nats.NewClient(nats.DefaultConfig())'
