"""SVG from strangers to PNG, in guarded children. Knows no roles and no sockets."""
