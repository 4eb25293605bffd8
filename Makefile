# Every command of the project. The work is done by scripts: hack/ (build, demo, tests) and dev/ (the local cluster).
.DEFAULT_GOAL := help
.PHONY: help demo test down image lint bench bench-migrate prepare

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## A Kubernetes of its own, the operator, and the AMAS platform on it, up to Ready (KUBECONFIG: on your cluster)
	@hack/demo

down: ## Remove what make demo made
	@hack/down

test: ## Everything: lint, unit tests, tests with real servers, end to end on a cluster of its own
	@hack/test

bench: ## The same with five rounds of measurements, five idle minutes, and a cut at every statement of a migration
	@AMAS_EVERY_CUT=1 AMAS_E2E_ROUNDS=5 AMAS_E2E_IDLE=300 hack/test

bench-migrate: ## What migrations cost beside the least they can cost and beside sqlx and refinery; fails where a target is missed; needs PostgreSQL and a quiet machine
	@hack/bench-migrate

lint: ## Formatting, clippy, generated files, chart, manifests, shell scripts
	@hack/lint

image: ## The operator's image as an archive in the cache; prints its path
	@hack/image

prepare: ## Install what is missing: Debian packages, Rust, Go (the other commands do it by themselves)
	@hack/prepare build test lint
