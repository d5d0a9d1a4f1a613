# What a contributor runs. Long stories are in tests/run, tests/image and the testbed program.

TESTBED = cargo run --quiet --package pvmigrate-testbed --

.PHONY: deps image cluster cluster-down demo bench-mover test test-long

deps: ## Debian packages, programs built from Go, cargo-deny; each only when missing or out of date
	$(TESTBED) deps

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

test: ## everything that must hold before a change goes in
	tests/run

test-long: ## what takes longer: many files, many claims, many crashes
	tests/run long
