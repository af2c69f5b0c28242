"""Proposer, coder and solver as pure functions: prompts, parsing, grading, rewards, filters."""
