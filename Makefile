# CARGO_TARGET_DIR is cargo's own: where it is set, every target here builds there.
.DEFAULT_GOAL := help
.PHONY: help run test lint bench demo

# What an embedder may choose: each must build without the others. The empty one is the bare logger.
EMBEDDER_FEATURES := "" sqlite parquet layer

help: ## Show what there is to make
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Start the server with no config: it prints where it listens, where the data goes and a curl to try
	@cargo run --all-features --bin predlog -- serve

test: ## Install the services that the tests use into .cache, then run every test, example and doc test
	@# Much of the services comes over the network, while the compiler needs the cores.
	@tests/services/install.sh & services=$$!; \
	echo cargo test --all-features --no-run; \
	cargo test --all-features --no-run || { kill $$services; exit 1; }; \
	wait $$services
	@# The wheel is compiled by what the tests leave of the cores; what it depends on was just compiled.
	@mkdir -p .cache/logs; nice -n 19 bash python/test.sh build > .cache/logs/python-wheel.log 2>&1 & wheel=$$!; \
	tests/run.sh || { kill $$wheel; exit 1; }; \
	wait $$wheel || { cat .cache/logs/python-wheel.log; exit 1; }
	@bash python/test.sh run

lint: ## Check formatting, clippy, each embedder's feature set and the docs; a warning is an error
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features -- -D warnings
	@for features in $(EMBEDDER_FEATURES); do \
		echo "cargo clippy --lib --no-default-features --features '$$features' -- -D warnings"; \
		cargo clippy --lib --no-default-features --features "$$features" -- -D warnings || exit 1; \
	done
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features

bench: ## Run the benches, each against its peers in the same run
	@tests/services/install.sh kafka minio spark iceberg
	cargo bench --all-features

demo: ## Serve a real model, replay its data set against it, and query the logged predictions with DuckDB
	@tests/services/install.sh readers
	@bash examples/demo.sh
