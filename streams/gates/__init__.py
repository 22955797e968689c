"""Anytime-valid evidence for gates: it may be looked at after every batch."""
