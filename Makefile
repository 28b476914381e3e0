# Everything a developer types. `make` or `make help` lists the targets.

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X main.version=$(VERSION)
FUZZTIME ?= 3000x
BENCH    ?= .
SOAK     ?= 10000000
RIVALS   ?=

.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## the static binary, bin/gateway
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/gateway ./cmd/gateway

run: ## run the gateway with config.toml
	$(GO) run ./cmd/gateway run --config config.toml

demo: ## run the demo: gateway, three servers, ten thousand users
	$(GO) run ./cmd/gateway demo

test: needs format vet lint race alloc manifests fuzz ## everything that guards main; under 15 minutes on 2 cores

needs: ## install what the tests need from Debian's packages (root), or say how
	@GO='$(GO)' scripts/needs

format: ## fail when a file is not gofmt-clean
	@unformatted=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); \
	if [ -n "$$unformatted" ]; then echo "not gofmt-clean:"; echo "$$unformatted"; exit 1; fi

vet: ## go vet
	$(GO) vet ./...

lint: ## staticcheck
	$(GO) tool staticcheck ./...

race: ## all tests, with the race detector
	$(GO) test -race -p 3 -timeout 10m ./...
	PLAIN_FRONT=off $(GO) test -race -timeout 5m ./listener
	PLAIN_FRONT=off $(GO) test -race -timeout 5m -run 'Smuggl|Fram|Body|Bodies|Interim|Stream|Pipelin|Head' ./proxy

prove-front: ## all tests of the data plane with every request through fasthttp
	PLAIN_FRONT=off $(GO) test -race -count=1 -timeout 10m ./listener ./proxy

alloc: ## the tests that count allocations or memory, without the race detector
	$(GO) test -count=1 -run 'Alloc|MemoryIsBounded' -timeout 5m ./...

manifests: ## the Kubernetes manifests, against the types of Kubernetes (a module of its own)
	cd deploy/kubernetes && $(GO) test ./...

fuzz: ## each fuzz test for FUZZTIME: so many inputs (default 3000x), or a time such as 60s
	@GO='$(GO)' FUZZTIME='$(FUZZTIME)' scripts/fuzz

bench: ## Go benchmarks, in the form that benchstat reads
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem ./...

prove-users: ## figures of the user service on a million users
	$(GO) test -tags prove -run TestProve -count=1 -v ./examples/users

prove-balance: ## figures of balancing: slow, dying and failing servers, recovery, slow start, overload, picks
	$(GO) test -tags prove -run 'TestProveBalance|TestProveAdaptive' -count=1 -v ./proxy
	$(GO) test -run TestPeakEWMAAvoidsTheSlowServer -count=1 -v ./upstream
	$(GO) test -run '^$$' -bench Pick -benchtime 300ms -benchmem ./upstream

prove-backends: ## figures of outages: Postgres and Redis killed and frozen under load
	$(GO) test -tags prove -run TestProveBackends -count=1 -v ./cmd/gateway

bench-rivals: build ## the gateway beside nginx, HAProxy, Varnish, Caddy and Traefik; half an hour on an idle machine
	@GO='$(GO)' scripts/rivals
	BENCH_GATEWAY=$(CURDIR)/bin/gateway BENCH_COMMAND='make bench-rivals RIVALS="$(RIVALS)"' $(GO) run ./benchmarks $(RIVALS)

bench-rivals-quick: build ## one short round of bench-rivals, with what is installed
	BENCH_GATEWAY=$(CURDIR)/bin/gateway $(GO) run ./benchmarks -quick -out .tmp/bench-quick $(RIVALS)

profile: build ## CPU profiles and flame graphs of the scenarios, in .tmp/profiles
	BENCH_GATEWAY=$(CURDIR)/bin/gateway $(GO) run ./benchmarks -profile .tmp/profiles $(RIVALS)

prove-cores: build ## CPU time of a request with one processor and two, and the locks that are fought for
	BENCH_GATEWAY=$(CURDIR)/bin/gateway $(GO) run ./benchmarks -cores $(RIVALS)

prove-full-cache: build ## waiting times with a full cache of 1 GiB beside those with an empty one
	BENCH_GATEWAY=$(CURDIR)/bin/gateway $(GO) run ./benchmarks -full-cache $(RIVALS)

prove-alloc: ## allocations of a request with each feature on; the table of docs/performance.md
	PROVE_ALLOC_DOC=$(CURDIR)/docs/performance.md $(GO) test -tags prove -run 'TestProveAlloc$$' -count=1 -v ./proxy

prove-load: ## figures of gateway load: against wrk, and against delays that are known
	@GO='$(GO)' scripts/needs wrk
	$(GO) test -tags prove -run TestProveLoad -count=1 -v ./cmd/gateway

prove-limit: ## figures of the limits: exactness, three gateways on one Redis, ten million keys
	$(GO) test -tags prove -run 'TestProve(Limits|TenMillionKeys)' -count=1 -timeout 15m -v ./cmd/gateway
	$(GO) test -run TestMemoryIsBounded -count=1 -v ./middleware/ratelimit
	$(GO) test -run '^$$' -bench LocalDecision -cpu 1,2 -benchmem ./middleware/ratelimit

prove-cache: ## hit ratios and costs of the cache's store, beside a library, LRU and the optimum; outages of its Redis
	$(GO) test -tags prove -run TestProveCache -count=1 -v ./middleware/cache
	$(GO) test -tags prove -run TestProveTier -count=1 -v ./proxy

soak: ## SOAK (ten million) random queries: the memory of the process stays within the cache's limit; ten minutes
	SOAK=$(SOAK) $(GO) test -tags prove -run TestProveRandomQueries -count=1 -timeout 45m -v ./cmd/gateway

prove-compress: ## every coding at every size, by the reference tools, curl and Chromium; ratios beside the tools
	$(GO) test -count=1 -timeout 15m -run 'ReferenceToolsDecode|ChromiumDecodes' -v ./proxy
	COMPRESS_RATIOS="users $$($(GO) env GOROOT)/src/testdata/Isaac.Newton-Opticks.txt $$($(GO) env GOROOT)/src/compress/testdata/gettysburg.txt" $(GO) test -count=1 -run Ratios -v ./middleware/compress

screenshots: ## take the pictures of the dashboard anew, after SECONDS of load (default 150)
	$(GO) test -tags prove -run TestProveDashboard -count=1 -v ./cmd/gateway

generate: ## write generated files anew: option comments, schema, docs/configuration.md
	$(GO) generate ./...

clean: ## remove what the other targets made
	rm -rf bin .tmp

.PHONY: prove-front help build run demo test needs format vet lint race alloc manifests fuzz bench prove-users prove-balance prove-backends prove-load bench-rivals bench-rivals-quick prove-limit soak prove-cache prove-compress screenshots generate clean profile prove-cores prove-full-cache prove-alloc
