"""Experiments that justify a default: one command each, a table for docs/."""
