"""Simulated models that come and go with the configuration, as the engine door's do (`--follow-config`)."""
