"""Drift: whether prompts and results are still what they were. A pure core, a detector a file."""
