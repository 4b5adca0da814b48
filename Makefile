# conntrackgo: `make demo` shows it at work, `make test` runs every test.

# The last line of a test run is the runner's.
MAKEFLAGS += --no-print-directory

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
BIN      := bin/conntrackgo
FUZZTIME ?= 10s
PREFIX   ?= /usr/local

.PHONY: all build demo bench bench-quick test unit sim-long soak integration faults race fuzz lint deps install clean

all: build

build: $(BIN)

.PHONY: $(BIN)
$(BIN):
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '-X main.build=$(VERSION)' -o $@ ./cmd/conntrackgo

## demo: two firewalls, a client and a server in namespaces; fails over and shows what happens
demo: deps build
	$(GO) run ./internal/demo -bin $(abspath $(BIN))

## bench: next to the C daemon, in one run, as ratios; writes docs/benchmarks.md
bench: deps build
	$(GO) build -o bin/bench ./internal/bench
	CONNTRACKGO_BIN=$(abspath $(BIN)) bin/bench -out docs $(BENCHFLAGS)

## bench-quick: the most telling rows in less than three minutes; only prints
bench-quick: deps build
	$(GO) build -o bin/bench ./internal/bench
	CONNTRACKGO_BIN=$(abspath $(BIN)) bin/bench -quick -rounds 1 $(BENCHFLAGS)

## test: installs what the tests need and runs all of them
test: deps build
	$(GO) vet ./...
	$(GO) test -count=1 -timeout 30m $$($(GO) list ./... | grep -v internal/nettest/)
	$(MAKE) race
	$(MAKE) fuzz
	$(MAKE) integration

## unit: what needs neither root nor packages
unit:
	$(GO) test -count=1 ./pkg/... ./cmd/... ./internal/sim/...

## sim-long: SEEDS of each profile of the simulation, an hour or so
SEEDS ?= 50000
sim-long:
	$(GO) test -count=1 -timeout 12h ./internal/sim/cluster -sim.seeds $(SEEDS)
	$(GO) test -count=1 -timeout 12h ./pkg/node -run TestTwoNodesConverge -sim.seeds $$(( $(SEEDS) / 10 ))
	$(GO) test -count=1 -timeout 12h ./pkg/ftfw -run Simulate -sim.seeds $$(( $(SEEDS) / 10 ))

## soak: SOAK of churn and failovers on a pair: nothing lost, nothing grows, equal tables
SOAK ?= 20m
soak: deps build
	CONNTRACKGO_BIN=$(abspath $(BIN)) SOAK=$(SOAK) $(GO) test -count=1 -v -timeout 0 -run '^TestSoak$$' ./internal/nettest/failover

## integration: real kernel, real conntrackd, real keepalived, in network namespaces
integration: build
	CONNTRACKGO_BIN=$(abspath $(BIN)) $(GO) test -count=1 -p 1 -timeout 30m ./internal/nettest/...

## faults: FAULTS_TIME of kill -9, cuts, loss and the rest at random under load, in each pairing
FAULTS_TIME ?= 10m
faults: deps build
	CONNTRACKGO_BIN=$(abspath $(BIN)) FAULTS_TIME=$(FAULTS_TIME) $(GO) test -count=1 -timeout 12h ./internal/nettest/itest -run TestFaults -v

## race: the race detector, on all that has more than one goroutine
race: deps
	@scripts/race

## fuzz: FUZZTIME of each fuzz target
fuzz:
	@scripts/fuzz $(FUZZTIME)

## lint: what CI does not need and a maintainer wants
lint:
	golangci-lint run ./...

## deps: Debian packages for the tests and the demo
deps:
	@scripts/deps

install: build
	install -D -m 0755 $(BIN) $(DESTDIR)$(PREFIX)/sbin/conntrackgo
	[ -e $(DESTDIR)/etc/conntrackd/primary-backup.sh ] || install -D -m 0755 contrib/primary-backup.sh $(DESTDIR)/etc/conntrackd/primary-backup.sh

clean:
	rm -rf bin
