"""driftgate: rolls a semantic enhancement out to live traffic and takes it back when it harms."""

__version__ = "0.1.0"
