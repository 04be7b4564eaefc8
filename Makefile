# Thin verbs over the scripts in tools/; arguments to pytest: tools/test -k routing

.PHONY: run test lint types bench gate

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

gate:
	@tools/bench/run --gate
