"""Benchmarks that an installed package runs: `fastseq bench`, and the scripts of benchmarks/."""
