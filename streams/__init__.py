"""The monitor: a pure fold over one log for each service, and the Faust application around it."""
