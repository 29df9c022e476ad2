"""What makes files that ship, in the package or beside it; each script's head says how."""
