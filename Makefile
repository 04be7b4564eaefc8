# Thin verbs over the scripts in tools/; arguments to pytest: tools/test -k routing

.PHONY: run test lint types bench

run:
	@tools/run

test:
	@tools/test

lint:
	@tools/test --lint

types:
	@tools/test --types

bench:
	@tools/bench/run
