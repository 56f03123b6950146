"""How fast labelfx is, and what it costs: see `experiments/benchmarks/README.md`."""
