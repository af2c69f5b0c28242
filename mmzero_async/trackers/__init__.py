"""Trackers: figures of a run, taken from its log, shown by other people's programs."""
