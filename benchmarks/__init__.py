"""What the figures of README.md and docs/ are measured with; each script's head says how."""
