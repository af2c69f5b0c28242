"""Benchmarks: each prints one JSON line a figure, with a rival or a limit from the same run."""
