"""What everything stands on: whole files, mistakes, memory, progress, interruption, clusters."""
