# The verbs of this repository; `make` alone lists them.

.DEFAULT_GOAL := help
.PHONY: help demo demo-stop test clients page api bench bench-instructions pgo lint

help: ## list the verbs
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "make %-18s %s\n", $$1, $$2 }'

demo: ## start a local cluster with slotway in front of it, and leave both running
	@sh deploy/ensure-server.sh
	cargo build --release
	@bash deploy/demo.sh start

demo-stop: ## stop what `make demo` left running
	@bash deploy/demo.sh stop

test: ## run all tests, those on real servers too
	@sh deploy/ensure-server.sh
	cargo test

clients: ## let real clients of several languages work through the proxy (needs their registries)
	@bash tests/clients/run.sh

page: ## use the status page in a real browser; screenshots go into target/page
	@bash tests/page/run.sh

api: ## send the HTTP side all that its OpenAPI document allows, and what it does not
	@bash tests/api/run.sh

bench: ## run the benchmarks
	cargo bench

bench-instructions: ## count the instructions of a request, beside those recorded (needs valgrind)
	@sh deploy/ensure-server.sh
	cargo build --release
	cargo run --quiet --example instructions -- $(ARGS)

pgo: ## release build with a profile of itself under load (needs rustup; twice the time)
	@sh deploy/ensure-server.sh
	@bash benches/pgo.sh

lint: ## check format and lints
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
