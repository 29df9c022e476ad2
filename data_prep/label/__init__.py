"""The labelling page: `stormpsr label`."""
