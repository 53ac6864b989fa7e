# The two commands a newcomer needs: make demo, make test. Both install what they miss (as root, on Debian).
GO      ?= go
GOFLAGS += -trimpath
# grpcnotrace leaves out grpc's debug pages and with them html/template: 3.5 MB of each driver.
TAGS    := grpcnotrace
# The linter's path: -modfile does not work where there is a workspace.
LINT    = $$(GOWORK=off $(GO) tool -n -modfile=$(CURDIR)/tools/go.mod golangci-lint)
# Modules of their own, for what not every driver should carry; the second one tests
# the first with csidriver, in a workspace, and nothing imports it.
MODULES := idempotency/etcdlock idempotency/etcdlock/replicas
# test/kubernetes is vetted and linted with them; its tests want a cluster (make kubernetes).
VETTED  := $(MODULES) test/kubernetes

.PHONY: demo test kubernetes kubernetes-timing mutants soak crash lvm unit bench bench-lvm bench-nfs lint cross fmt setup clean

## demo: one volume through its life on real disks, printed step by step
demo:
	@bash test/setup.sh demo
	CGO_ENABLED=0 $(GO) build $(GOFLAGS) -tags $(TAGS) -o bin/csikit ./cmd/csikit
	bin/csikit demo

## test: everything, as CI runs it; CSIKIT_REQUIRE=root,vm,tools (and history) turns skips into failures
test: setup
	$(GO) vet ./...
	$(GO) test -race -timeout 30m ./...
	for m in $(MODULES); do (cd $$m && $(GO) vet ./... && $(GO) test -race -timeout 10m ./...) || exit 1; done

## soak: the model tests of the node engine, at least 10,000 steps on real devices,
## of a whole driver with several clients, at least 100,000 calls, and the replays of
## orchestrators with every schedule
soak: setup
	$(GO) test -timeout 60m -count=1 -v -run '^TestModel$$' ./test/model -rapid.checks=4000
	$(GO) test -timeout 60m -count=1 ./test/co -co.all
	$(GO) test -timeout 60m -count=1 -v -run '^(TestModel|TestRealModel)$$' ./mounter -rapid.checks=500 -rapid.nofailfile

## crash: the whole crash matrix, about 4 minutes: a driver killed in every RPC of loopfile (docs/crash.md)
crash: setup
	CSIKIT_CRASH=all $(GO) test -timeout 60m -count=1 -v -run '^TestMatrix$$' ./test/crash

## lvm: every check of the conformance test over each class of backends/lvm, and the suite over its other profiles: an hour
lvm: setup
	CSIKIT_LVM=all CSIKIT_VM_LIMIT=40m $(GO) test -timeout 5h -count=1 -v -run '^TestWhole$$' ./examples/lvm
	CSIKIT_LVM=all CSIKIT_VM_LIMIT=40m $(GO) test -timeout 5h -count=1 -v -run '^TestConformanceOfProfiles$$' ./backends/lvm

## mutants: the harness against a driver with each fault, and against valid ones that are unusual; under 10 minutes
mutants: setup
	CSIKIT_MUTANTS=all $(GO) test -timeout 15m -count=1 -run '^TestSwitches$$' ./test/mutants
	$(GO) build $(GOFLAGS) -o bin/mutants ./test/mutants/run
	bin/mutants

## kubernetes: the examples under a real Kubernetes (test/kubernetes), which is built once, 20 CPU-minutes: loopfile on
## this machine, lvm and nfs in the VM at the same time; the table at the end has all
kubernetes:
	@bash test/kubernetes/setup.sh
	test/kubernetes/build.sh missing
	test/kubernetes/all.sh

## kubernetes-timing: examples/loopfile timed there beside csi-driver-host-path, of which HOSTPATH_SRC is a clone:
## TIMING=volumes one after the other, and at once
TIMING ?= 6,100
kubernetes-timing:
	@bash test/kubernetes/setup.sh
	test/kubernetes/build.sh missing $(if $(HOSTPATH_SRC),hostpath)
	cd test/kubernetes && CSIKIT_TIMING=$(TIMING) CSIKIT_REQUIRE=kubernetes $(GO) test -count=1 -v -timeout 60m -run '^TestTiming$$' .

## unit: what needs neither root nor a VM
unit:
	$(GO) test -short ./...

## bench: what csikit costs, beside bare gRPC and what drivers do otherwise, with the goals
bench: setup
	$(GO) run ./internal/bench

## bench-lvm: volumes' lives on real LVs beside the commands of lvm2, mkfs and mount, in the VM
bench-lvm: setup
	CSIKIT_LVM=bench $(GO) test -timeout 15m -count=1 -v -run '^TestBench$$' ./examples/lvm

## bench-nfs: volumes' lives over NFS beside mkdir, mount.nfs and mount --bind, and 1,000 on one share, in the VM
bench-nfs: setup
	CSIKIT_MEASURE=1 $(GO) test -timeout 15m -count=1 -v -run '^TestMeasure$$' ./examples/nfs

## lint: golangci-lint as pinned in tools/go.mod
lint:
	$(LINT) run --allow-parallel-runners ./...
	for m in $(VETTED); do (cd $$m && $(LINT) run --allow-parallel-runners ./...) || exit 1; done

## cross: builds and vets for the other systems
cross:
	GOOS=darwin GOARCH=arm64 $(GO) vet ./...
	GOOS=linux GOARCH=arm64 $(GO) vet ./...
	GOOS=linux GOARCH=386 $(GO) vet ./...
	for m in $(VETTED); do (cd $$m && GOOS=darwin GOARCH=arm64 $(GO) vet ./... && GOOS=linux GOARCH=386 $(GO) vet ./...) || exit 1; done

fmt:
	gofmt -w $$(git ls-files '*.go')

## setup: host programs that the tests and the demo use
setup:
	@bash test/setup.sh test

clean:
	rm -rf bin
