"""Stages of a run, a file each, whose `STAGE` describes it; `order` lists them, `run` runs them."""
