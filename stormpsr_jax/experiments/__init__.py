"""Many runs from one command: which stages they share, in what order, and their figures."""
