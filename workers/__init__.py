"""The processes: one short file each over one loop. They do not know each other."""
