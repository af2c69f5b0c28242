"""The dashboard: `mmzero ui RUN`, one page over a live run or a finished log."""
