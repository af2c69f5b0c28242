"""A cluster on one machine: hosts with addresses and SSH servers of their own, and their faults."""
