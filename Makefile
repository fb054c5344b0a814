# `make` alone prints this help.
SHELL       := /bin/bash
.SHELLFLAGS := -o pipefail -c

GO       ?= go
PKG      ?= ./...
T        ?=
ROUNDS   ?= 5
BENCH    ?= .
FUZZTIME ?= 20s
BASE     ?= HEAD
ONLY     ?=
FOR      ?= 10m
SEED     ?= 0
COMPARE  ?= -rounds 7

LINT      = $(GO) tool -modfile=tools/lint.mod golangci-lint
BENCHSTAT = $(GO) tool -modfile=tools/bench.mod benchstat
LIBRARY   = $$($(GO) list . ./doctor ./natstest ./internal/... | grep -v -e /internal/consultest -e /internal/conntest -e /internal/freeport -e /internal/faults -e /internal/chaos)
FAST      = $$($(GO) list $(PKG) | grep -v -e /internal/faults -e '/internal/chaos$$')
PROVEN    = $$($(GO) list ./... | grep -e /nats$$ -e /internal/)
MODULES   = $$(git ls-files '*/go.mod' | xargs -n 1 dirname)
RUN       = $(if $(T),-run '$(T)')

.DEFAULT_GOAL := help
.PHONY: help test race faults chaos lint fmt vet deps check bench compare examples consul fuzz proof proof-short mutants cover docs api weight clean otel dashboard prometheus

help: ## print this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  variables: T=TestName PKG=./natstest ROUNDS=5 BENCH=Publish FUZZTIME=20s BASE=v0.1.0 FOR=10m SEED=1"

test: ## run the tests (under two minutes), and tell which were skipped
	@mkdir -p .bin
	$(GO) test -json -timeout 30m -parallel 24 $(RUN) $(FAST) | tee .bin/test.json | $(GO) run ./tools/skipped

race: ## run the tests under the race detector
	$(GO) test -race -timeout 30m -parallel 6 $(RUN) $(FAST)

faults: ## run the long fault tests: restarts, cut connections, elections
	@mkdir -p .bin
	$(GO) test -json -race -count=1 -timeout 40m $(RUN) ./internal/faults/... | tee .bin/faults.json | $(GO) run ./tools/skipped

chaos: .bin/consul ## break servers, lines and processes at random for FOR, and check what is left
	@mkdir -p .bin
	$(GO) test -c -o .bin/chaos.test ./internal/chaos
	.bin/chaos.test -test.run TestChaos -test.timeout 0 -chaos.for $(FOR) -chaos.seed $(SEED) -chaos.dir .bin

lint: ## run the linters
	$(LINT) run ./...
	lint=$$($(GO) tool -n -modfile=tools/lint.mod golangci-lint) && for module in otelnats internal/bench; do \
		(cd $$module && $$lint run --build-tags prometheus ./...) || exit 1; done

fmt: ## fail when a file is not formatted
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	if [ -n "$$unformatted" ]; then echo "not formatted (gofmt -w):"; echo "$$unformatted"; exit 1; fi

vet: ## run go vet, for 32 bits as well
	$(GO) vet ./...
	GOOS=linux GOARCH=386 $(GO) vet ./...
	for module in $(MODULES); do $(GO) vet -C $$module -tags prometheus ./... || exit 1; done

deps: ## fail when the library itself depends on a server or on testify
	@found=$$($(GO) list -deps . ./doctor | grep -E '^github.com/(nats-io/nats-server|stretchr/testify)'); \
	found+=$$($(GO) list -C otelnats -deps . | grep -E '^(go.opentelemetry.io/otel/(sdk|exporters)|github.com/(nats-io/nats-server|stretchr/testify|prometheus))'); \
	if [ -n "$$found" ]; then echo "the library must not depend on:"; echo "$$found"; exit 1; fi

otel: ## run the tests of otelnats, a module of its own
	$(GO) test -C otelnats -race -count=1 ./...

PROMETHEUS = .bin/prometheus/usr/bin/prometheus

dashboard: $(PROMETHEUS) ## run every query of the dashboard in Debian's Prometheus
	PROMETHEUS=$(CURDIR)/$(PROMETHEUS) $(GO) test -C otelnats -tags prometheus -count=1 -run TestDashboard -v ./dashboard

prometheus: $(PROMETHEUS)

$(PROMETHEUS):
	mkdir -p .bin/prometheus
	cd .bin/prometheus && { apt-get download prometheus || { apt-get update && apt-get download prometheus; }; }
	dpkg -x .bin/prometheus/prometheus_*.deb .bin/prometheus

check: fmt vet deps lint race otel ## everything that a change must pass

bench: ## compare with raw nats.go in ROUNDS rounds and print the table
	@rm -f .bin/bench.txt; mkdir -p .bin
	$(GO) test -c -o .bin/bench.test .
	for round in $$(seq $(ROUNDS)); do \
		.bin/bench.test -test.run '^$$' -test.bench '$(BENCH)' -test.benchtime 300ms | tee -a .bin/bench.txt || exit 1; done
	$(BENCHSTAT) -col '/impl@(raw client)' .bin/bench.txt

compare: ## compare with raw nats.go and the peers (half an hour); .bin/compare.json and .svg
	@mkdir -p .bin
	$(GO) build -C internal/bench -o $(CURDIR)/.bin/compare .
	.bin/compare -json .bin/compare.json -plot .bin/compare.svg $(COMPARE)

examples: ## run every example once, and the tests of the modules beside the library
	$(GO) test -count=1 -v ./examples/...
	for module in $(MODULES); do $(GO) test -C $$module -count=1 ./... || exit 1; done

consul: .bin/consul ## build the Consul agent that the discovery tests run (minutes, once)

.bin/consul: tools/consul.mod tools/consul.sum
	$(GO) build -modfile=tools/consul.mod -o $@ github.com/hashicorp/consul

fuzz: ## fuzz each fuzz target for FUZZTIME
	for pkg in $(LIBRARY); do for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
		$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s $$pkg || exit 1; done; done

proof: .bin/consul ## prove everything anew, and write the figures into docs/guarantees.md and docs/performance.md
	@echo "At most 75 minutes, some 45 on an idle machine: chaos 10, the tests of the guarantees 10, fuzzing 15, the comparison 40."
	$(MAKE) chaos FOR=8m
	CI=true $(GO) test -json -count=1 -timeout 20m -run "$$($(GO) run ./tools/proof -names)" $(PROVEN) | tee .bin/proof.json | $(GO) run ./tools/skipped
	$(MAKE) fuzz FUZZTIME=40s
	$(MAKE) compare COMPARE='-rounds 7 -for 38m'
	$(GO) run ./tools/proof -chaos .bin/chaos.json -compare .bin/compare.json .bin/proof.json

proof-short: ## a part of it, in 10 minutes at most, without the figures
	@echo "At most 10 minutes. LEFT OUT (make proof has it): chaos and fuzzing, whose faults and inputs are drawn anew each time;"
	@echo "the longer workloads; and the figures, for which the pages stay as they are."
	$(GO) run ./tools/proof -check .bin/test.json .bin/faults.json
	$(MAKE) compare COMPARE='-short -rounds 1'

mutants: ## try whether the tests notice changes to the code (an hour; ONLY=internal/wire for a part)
	ulimit -v 16000000; $(GO) run ./tools/mutants -only '$(ONLY)'

cover: ## print the test coverage of the library
	$(GO) test -coverprofile=coverage.out -coverpkg=$$(echo $(LIBRARY) | tr ' ' ,) $(LIBRARY)
	$(GO) tool cover -func=coverage.out | tail -n 1

docs: ## check the pages: code, links, names, and the diagrams, for which it needs node and npm
	$(GO) test -count=1 -run TestDocs .
	npm ci --prefix tools/docs --ignore-scripts --no-audit --no-fund
	node tools/docs/diagrams.mjs docs/*.md docs/zh/*.md

api: ## write api/v0.txt anew, and print what has changed since BASE, and what of that breaks programs
	$(GO) test -count=1 -run TestDocsAPI . -update
	@tools/api.sh $(BASE)

weight: ## print what a program takes on with this package
	tools/weight.sh

clean: ## remove what was built
	rm -rf .bin coverage.out
