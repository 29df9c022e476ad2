"""Label and prediction files, read and written."""
