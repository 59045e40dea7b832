# viaduct: make help

GO       ?= go
FUZZTIME ?= 10s
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT   := $(shell git describe --always --abbrev=40 --dirty=+changes --exclude '*' 2>/dev/null)
DATE     := $(shell TZ=UTC git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd 2>/dev/null)
CTL      := github.com/viaduct-net/viaduct/internal/ctl
LDFLAGS  := -s -w -X $(CTL).version=$(VERSION) -X $(CTL).commit=$(COMMIT) -X $(CTL).date=$(DATE)
PACKAGES := clang-14 llvm-14 libbpf-dev iproute2 iputils-ping iputils-arping iperf3 \
            ethtool tcpdump ndisc6 netcat-openbsd nmap jq curl python3 isc-dhcp-client udhcpc prometheus nftables
BUILD_PACKAGES := git gzip
INTEROP_PACKAGES := ovn-central
ATTACK_PACKAGES  := openvswitch-switch ovn-central ovn-host
ROGUES   ?= 1,8
PAIRS    ?= 400
SEED     ?= 1
AGENTS   ?= 500
PORTS    ?= 20000
LIBVIRT_PACKAGES := libvirt-daemon libvirt-daemon-driver-qemu libvirt-daemon-system libvirt-clients jq
VM_PACKAGES := qemu-system-x86 busybox-static cpio kmod xz-utils zstd lz4
# Of the tests with agents, those that depend on what a datapath can do: run with Open vSwitch's module on the last kernel.
VM_NETNS    := TestAgentKilled|TestReach|TestNAT|TestHosts(Killed)?$$|TestDatapathDeleted
VM_KERNELS  := linux-image-cloud-amd64 linux-image-6.12-cloud-amd64
ARCHITECTURES  := amd64 arm64
# Packages whose tests take long: they begin first.
SLOW     := ./test/sim ./internal/agent ./internal/topo/store/etcd ./internal/path/datapath/ebpf
SOURCES   = $(shell git ls-files '*.go')

.DEFAULT_GOAL := build
.PHONY: help setup root build packages release test test-packages test-libvirt test-vm interop vm-netns vm-demo sim unit race check generate fresh bench bench-attacks bench-ovs bench-scale demo fuzz clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install what is missing (Debian 12; needs root only if something is)
	@command -v $(GO) >/dev/null || { echo "make: Go is missing, see https://go.dev/dl" >&2; exit 1; }
	@command -v dpkg-query >/dev/null || { \
	  echo "make setup: this is no Debian. Install what these packages hold: $(PACKAGES)" >&2; exit 0; }; \
	missing=; for p in $(PACKAGES); do \
	  [ "$$(dpkg-query -W -f='$${db:Status-Status}' $$p 2>/dev/null)" = installed ] || missing="$$missing $$p"; \
	done; \
	[ -z "$$missing" ] && exit 0; \
	if [ "$$(id -u)" != 0 ]; then \
	  echo "make setup: missing packages, and only root can install them. Run:" >&2; \
	  echo "  apt-get update && apt-get install -y --no-install-recommends$$missing" >&2; exit 1; \
	fi; \
	echo "installing$$missing"; \
	flock --close Makefile sh -c "apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $$missing"

root:
	@[ "$$(id -u)" = 0 ] || { \
	  echo "make: this needs root: it loads BPF programs and makes network namespaces" >&2; exit 1; }

build: ## bin/viaduct and bin/viaduct-cni
	$(GO) build -trimpath -ldflags '$(LDFLAGS) -X main.version=$(VERSION)' -o bin/ ./cmd/...

packages: ## .deb and .rpm of this commit, with checksums and bill of materials, in dist/
	@$(MAKE) --no-print-directory setup PACKAGES="$(BUILD_PACKAGES)"
	packaging/build.sh dist

release: ## the same for all architectures
	@$(MAKE) --no-print-directory setup PACKAGES="$(BUILD_PACKAGES)"
	@[ -z "$$(git status --porcelain)" ] || { echo "make release: the tree has changes that are not committed" >&2; exit 1; }
	packaging/build.sh dist $(ARCHITECTURES)

test: root setup unit race ## all tests: unit, BPF, namespaces, data races (root)

# As root, tests of the kernel datapath and of network namespaces run as well. What takes long begins first. Namespaces wait more than they compute: several at once, and nothing beside them.
unit:
	$(GO) test -count=1 -timeout 20m -p 3 $$($(GO) list $(SLOW) ./... | grep -v '/test/netns$$')
	$(GO) test -count=1 -timeout 20m -parallel 4 ./test/netns

race:
	$(GO) test -race -short -count=1 -timeout 10m -p 3 $(filter ./internal/%,$(SLOW)) ./internal/...

test-packages: ## the packages: built twice alike, checked, and installed, upgraded, removed under systemd in a guest
	@$(MAKE) --no-print-directory setup PACKAGES="$(BUILD_PACKAGES) $(VM_PACKAGES) mmdebstrap lintian"
	test/packages/build.sh
	test/packages/test.sh build/packages/old build/packages/new

test-libvirt: root build ## a guest of libvirt, emulated in software, on a virtual network (root)
	@$(MAKE) --no-print-directory setup PACKAGES="$(VM_PACKAGES) $(LIBVIRT_PACKAGES)"
	test/libvirt/test.sh

test-vm: export CGO_ENABLED := 0
test-vm: export VIADUCT_NEED_OVS := 1
test-vm: export VIADUCT_NEED_NETEM := 1
test-vm: export VM_PROGRAMS := $(CURDIR)/build/vm/programs.cpio
test-vm: export VM_FILES := $(CURDIR)/build/vm/viaduct
test-vm: ## both datapaths, and a laboratory's faults, on Debian's kernels 6.1 and 6.12, each in a guest
	@$(MAKE) --no-print-directory setup PACKAGES="$(VM_PACKAGES)"
	@test/vm/programs.sh build/vm
	@$(GO) build -trimpath -ldflags '-s -w' -o build/vm/viaduct ./cmd/viaduct
	@set -e; for kernel in $(VM_KERNELS); do test/vm/build.sh build/vm/$$kernel $$kernel; done
	@$(MAKE) --no-print-directory -j2 -O vm-netns $(VM_KERNELS:%=vm-%) vm-demo

# Tests with agents, and the demo, with Open vSwitch's module. The demo's flows are so few that Alice has tokens for all, however slow the guest is.
vm-netns:
	@VIADUCT_DRIVER=ovs VIADUCT_BINARY=/test/viaduct $(GO) test -count=1 -timeout 20m -parallel 1 \
	  -exec "$(CURDIR)/test/vm/exec.sh $(CURDIR)/build/vm/$(lastword $(VM_KERNELS))" -run '$(VM_NETNS)' ./test/netns

vm-demo:
	@test/vm/exec.sh build/vm/$(lastword $(VM_KERNELS)) build/vm/viaduct demo --conf=agent.datapath.driver=ovs --phase=3s --interval=200ms >build/vm/demo.log || \
	  { cat build/vm/demo.log; exit 1; }
	@tail -n 5 build/vm/demo.log

# What of test-vm concerns one kernel. Allocations are the compiler's matter, and slow to count in an emulated guest.
vm-%:
	@echo "Linux $$(cat build/vm/$*/release)"
	@$(GO) test -short -count=1 -p 1 -timeout 30m -skip 'DoNotAllocate|TestAllocations' \
	  -exec "$(CURDIR)/test/vm/exec.sh $(CURDIR)/build/vm/$*" ./internal/path/datapath/ebpf ./internal/path/datapath/ovs
	@$(GO) test -count=1 -exec "$(CURDIR)/test/vm/exec.sh $(CURDIR)/build/vm/$*" -run 'TestFaults$$' ./internal/lab

bench-ovs: export CGO_ENABLED := 0
bench-ovs: export VM_PROGRAMS := $(CURDIR)/build/vm/programs.cpio
bench-ovs: export VM_FILES := $(CURDIR)/build/vm/viaduct
bench-ovs: ## new flows with Open vSwitch's module beside eBPF, in one emulated guest: only the ratios mean something
	@$(MAKE) --no-print-directory setup PACKAGES="$(VM_PACKAGES)"
	@test/vm/programs.sh build/vm
	@$(GO) build -trimpath -ldflags '-s -w' -o build/vm/viaduct ./cmd/viaduct
	@$(GO) build -trimpath -ldflags '-s -w' -o build/vm/bench ./test/bench
	@guest=build/vm/$(lastword $(VM_KERNELS)); test/vm/build.sh $$guest $(lastword $(VM_KERNELS)); \
	test/vm/exec.sh $$guest build/vm/bench -binary /test/viaduct -only drivers -duration 5s

sim: ## whole clouds in one process (test/sim): SEED=n tells all that happens in one, SEEDS=n runs many
	$(GO) test -count=1 -timeout 24h -v ./test/sim -run TestSeeds $(if $(filter-out file,$(origin SEED)),-seed $(SEED)) $(if $(SEEDS),-seeds $(SEEDS)) $(if $(FIRST),-first $(FIRST))

interop: ## the simulator against OVN (ovn-trace): PAIRS (400) random pairs of network and packet, from SEED (1)
	@$(MAKE) --no-print-directory setup PACKAGES="$(INTEROP_PACKAGES)"
	INTEROP_REQUIRED=1 INTEROP_PAIRS=$(PAIRS) INTEROP_SEED=$(SEED) $(GO) test -count=1 -timeout 60m -v ./test/interop

check: ## format, vet, import law, generated code, linters where installed
	@bad=$$(gofmt -l $(SOURCES)); [ -z "$$bad" ] || { echo "gofmt is needed for:" >&2; echo "$$bad" >&2; exit 1; }
	$(GO) vet ./...
	$(GO) mod verify
	$(GO) test -count=1 ./internal
	@$(MAKE) --no-print-directory fresh
	@if command -v golangci-lint >/dev/null; then golangci-lint run; \
	else echo "golangci-lint is not installed: skipped"; fi

generate: setup ## compile bpf/, generate its Go bindings, docs/conf.md and docs/man
	$(GO) generate ./...

# Generated code and documentation are checked in; making them again must not change a byte.
fresh: setup
	@before=$$(mktemp) after=$$(mktemp); trap 'rm -f $$before $$after' EXIT; \
	sums() { git ls-files -z '*_bpfe[lb].go' '*_bpfe[lb].o' docs/conf.md docs/man | xargs -0r sha256sum; }; \
	sums >$$before; $(GO) generate ./... && sums >$$after || exit 1; \
	diff $$before $$after || { echo "generated code was not fresh: it is now, commit it" >&2; exit 1; }

bench: root setup ## the benchmarks that the documentation quotes (root)
	$(GO) run ./test/bench

bench-attacks: root setup ## what a VM feels of 20 attacks by ROGUES (1,8) others, here and with OVN on Open vSwitch (root, 20 minutes)
	@$(MAKE) --no-print-directory setup PACKAGES="$(ATTACK_PACKAGES)"
	@mkdir -p build
	$(GO) run ./test/bench -only attacks,rivals -nets viaduct,ovn -rogues $(ROGUES) -duration 3s >build/attacks.json; status=$$?; \
	cat build/attacks.json; $(GO) run ./test/bench -draw build/attacks.svg <build/attacks.json; exit $$status

bench-scale: root setup ## AGENTS (500) agents, PORTS (20000) VMs and one etcd on this machine: changes, memory, the start of an agent (root)
	@mkdir -p build
	$(GO) build -trimpath -o build/scale ./test/scale
	build/scale -agents $(AGENTS) -ports $(PORTS)

demo: root setup build ## a small cloud on this machine (root)
	bin/viaduct demo

fuzz: ## every fuzzer, FUZZTIME each (10s)
	@set -e; grep -rl --include='*_test.go' '^func Fuzz' . | xargs -rn1 dirname | sort -u | while read -r dir; do \
	  grep -ho '^func Fuzz[A-Za-z0-9_]*' $$dir/*_test.go | cut -c6- | while read -r fuzzer; do \
	    echo "$$dir $$fuzzer"; \
	    $(GO) test -run '^$$' -fuzz "^$$fuzzer\$$" -fuzztime $(FUZZTIME) -parallel 1 $$dir; \
	  done; \
	done

clean: ## remove what was built
	rm -rf bin build dist
