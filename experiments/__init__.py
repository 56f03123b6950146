"""Comparisons, benchmarks and plans; each is a command, and its README has what it gave."""
