# make demo, make test: set up what is missing, build, and go. See README.md.

CARGO ?= cargo

# Network namespaces need root; building does not.
ifneq ($(shell id -u),0)
SUDO = sudo -E env "PATH=$$PATH:/usr/sbin:/sbin"
TRIPLE := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
export CARGO_TARGET_$(TRIPLE)_RUNNER = sudo -E
endif

.PHONY: help demo test man bench soak kernels fuzz fuzz-check lint validate supply sbom deb rpm packages setup clean

help:
	@echo "make demo    show the main job: an attacker is banned, the office with the same failures is not"
	@echo "make test    all tests"
	@echo "make man     write the manual pages anew, from the command lines and ringfence.toml"
	@echo "make bench   speed and memory, beside the goals"
	@echo "make soak    ten minutes of events for ringfence-events: its memory stays flat"
	@echo "make kernels the kernel program on Debian's kernels, in virtual machines (amd64)"
	@echo "make fuzz    a minute of nonsense for each parser of lists and events"
	@echo "make validate FAIL2BAN=/etc/fail2ban    the settings, and the installed filters, each on its samples"
	@echo "make deb     the package for Debian, in target/packages; make rpm: that for Rocky Linux"
	@echo "make packages both, installed, used, upgraded and removed on a Debian 12 in namespaces"
	@echo "make lint    formatting and clippy"
	@echo "make supply  what is linked into the tools may be: licences, sources, yanked releases, advisories; ADVISORY_DB=DIR"
	@echo "make sbom    a CycloneDX list of it, target/ringfence.cdx.json"
	@echo "make setup   only set up what is missing"

demo:
	@scripts/setup demo
	@$(CARGO) build --release --locked --bin ringfence-ignore
	@$(SUDO) demo/run target/release/ringfence-ignore

test:
	@scripts/setup test
	@$(CARGO) test --locked

man:
	@MAKE_MAN=1 $(CARGO) test --quiet --locked --test manual the_pages_are_what

# So many bans are restored; fail2ban's own action takes minutes for these.
BANS ?= 10000
export BANS

bench:
	@scripts/setup bench
	@$(CARGO) bench --locked --bench ignore --bench lists --bench block --bench firewall --bench ban --bench filters --bench events --bench report

# In seconds.
SOAK_TIME ?= 600

soak:
	@scripts/setup test
	@$(CARGO) build --release --locked --bins
	@SOAK_TIME=$(SOAK_TIME) RINGFENCE_TOOLS=$(abspath $(or $(CARGO_TARGET_DIR),target))/release \
		$(CARGO) test --locked --test real -- --ignored --nocapture events::memory_stays_flat

kernels:
	@scripts/setup kernels
	@$(SUDO) scripts/kernels

# In seconds, for each target; what is found is left in fuzz/artifacts.
FUZZ_TIME ?= 60

# Without sanitizers stable Rust will do; they look for what only unsafe code can do wrong, and here is none.
fuzz:
	@scripts/setup fuzz
	@$(CARGO) fuzz --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-fuzz
	@for target in list_text feed events; do \
		mkdir -p fuzz/corpus/$$target && $(CARGO) fuzz run --sanitizer none $$target fuzz/corpus/$$target fuzz/seeds \
			-- -max_total_time=$(FUZZ_TIME) -max_len=4096 || exit 1; \
	done

# Whether they still compile; no test builds them.
fuzz-check:
	@scripts/setup fuzz
	@$(CARGO) check --locked --manifest-path fuzz/Cargo.toml

lint:
	@$(CARGO) fmt --check
	@$(CARGO) clippy --locked --all-targets -- -D warnings

# Which filters: those of this clone, or FAIL2BAN=/etc/fail2ban.
FAIL2BAN ?= fail2ban

validate:
	@$(CARGO) run --quiet --locked --bin ringfence -- validate --fail2ban $(FAIL2BAN)

# A copy of the database of advisories, where the network has none.
ADVISORY_DB ?=

supply:
	@scripts/setup supply
	@CARGO="$(CARGO)" ADVISORY_DB="$(ADVISORY_DB)" scripts/supply

sbom:
	@scripts/setup supply
	@mkdir -p target
	@CARGO="$(CARGO)" scripts/sbom >target/ringfence.cdx.json.new
	@mv target/ringfence.cdx.json.new target/ringfence.cdx.json

deb:
	@scripts/setup deb
	@scripts/package deb

rpm:
	@scripts/setup rpm
	@scripts/package rpm

# An upgrade needs two versions; nobody is to install the newer, which is the same.
packages:
	@scripts/setup packages
	@rm -rf target/packages target/newer
	@scripts/package deb
	@OUT=target/newer scripts/package deb $$(sed -n 's/^version = "\(.*\)"$$/\1/p' Cargo.toml | head -n 1)+newer
	@scripts/package rpm
	@$(SUDO) scripts/try-packages target/packages/*.deb target/newer/*.deb target/packages/*.rpm
	@$(SUDO) scripts/try-readme target/packages/*.deb

setup:
	@scripts/setup bench

clean:
	@$(CARGO) clean
