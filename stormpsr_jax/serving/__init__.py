"""The model folder, its networks as functions, and recognition picture by picture."""
