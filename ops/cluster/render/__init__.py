"""The plan of a run, written for schedulers that start it in our place. Pure: plan in, text out."""
