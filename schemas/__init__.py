"""driftgate's contract: event types, topics, the gate policy, and their encodings."""
