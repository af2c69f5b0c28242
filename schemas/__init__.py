"""What is said and stored: events, ids, packing, records, work. Knows nothing else of ours."""
