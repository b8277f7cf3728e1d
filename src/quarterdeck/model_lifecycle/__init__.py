"""A model on one machine, from its configuration to its removal: shared by the engine door and the simulator.

desired      what the configuration says should run
plan         what to start, drain and remove. Pure
reconciler   carries the plan out with a `Runtime` (Ray Serve, or the simulator), with back-off
memory       whether a model fits. Pure
start_times  how long a start takes, from earlier ones
status       the state of a model, in the door's `GET /endpoints` and in the gateway
"""
