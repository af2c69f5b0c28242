"""mmzero-async: self-evolving vision-language training over one event log."""

__version__ = "0.1.0"
