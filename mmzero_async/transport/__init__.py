"""ROUTER/DEALER protocol: append, acknowledge, lease. Knows no roles and no tensors."""
