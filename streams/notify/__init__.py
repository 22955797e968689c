"""Brings alerts to people: a sink of `driftgate.alerts`, with nothing to do with decisions."""
