"""Plotting programs from strangers to pictures: a check by name, then a process for each."""
