"""State machines over the log, `apply(state, event)`: thrown away and rebuilt at will."""
