"""Training stages, one file each; `main` runs those named in `config.stages`."""
