"""The commands as scripts, and the benchmarks: for people with a clone."""
