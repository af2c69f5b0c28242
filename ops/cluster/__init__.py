"""`mmzero run-cluster`: one run on many hosts, from an inventory, over SSH."""
