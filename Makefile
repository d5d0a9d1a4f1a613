# What a contributor runs. Long stories are in tests/run, tests/image and the testbed program.

FUZZ_SECONDS = 600
TESTBED = cargo run --quiet --package pvmigrate-testbed --

.PHONY: deps docs image cluster cluster-down demo bench-mover bench-fence fuzz test test-long

deps: ## Debian packages, programs built from Go, cargo-deny; each only when missing or out of date
	$(TESTBED) deps

docs: ## docs/options.md, from the fields of job/src/config.rs
	cargo build --quiet --package pvmigrate
	target/debug/pvmigrate options > target/options.md
	mv target/options.md docs/options.md

image: ## the container image as an archive, target/image.tar
	tests/image

cluster: deps image ## a running cluster that has the image; prints KUBECONFIG=…
	@$(TESTBED) up
	@$(TESTBED) load target/image.tar

cluster-down: ## ends the cluster and removes what it left
	$(TESTBED) down

demo: cluster ## a migration to watch
	cargo run --quiet --package pvmigrate-e2e --bin demo

bench-mover: ## the mover beside rsync, cp, tar and dd, as root; BENCH='--only small' for less
	cargo bench --package pvmigrate-mover --bench peers -- $(BENCH)

bench-fence: ## the webhook on one core, with ten thousand fenced claims
	cargo bench --package pvmigrate-webhook --bench reviews -- $(BENCH)

# It needs no nightly compiler: nothing of ours is unsafe, so no sanitizer is needed.
fuzz: ## the webhook with any bytes, and with reviews edited at any place; FUZZ_SECONDS each
	cargo fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz
	cd webhook/fuzz && for target in bytes edits; do \
		RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none $$target -- \
			-max_total_time=$(FUZZ_SECONDS) -timeout=10 || exit 1; \
	done

test: ## everything that must hold before a change goes in
	tests/run

test-long: ## what takes longer: many files, many claims, many crashes
	tests/run long
