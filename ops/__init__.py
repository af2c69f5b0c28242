"""Starting, supervising and looking: nothing imports this room."""
