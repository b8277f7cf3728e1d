"""How long a gateway takes from SIGTERM to its exit, step by step, after `shutdown_delay_seconds` and `drain_seconds`.

Whatever starts gateways must not kill one before those and SHUTDOWN_SECONDS have passed: `quarterdeck up` waits so
long, and `terminationGracePeriodSeconds` of a pod has to be as long.
"""

CLUSTER_DELAY_SECONDS = 8.0
"""`shutdown_delay_seconds` in a cluster, where the configuration does not say it."""

CANCEL_SECONDS = 5.0
"""For requests cancelled at the end of the drain: to be answered and settled."""
SERVER_SECONDS = 2
"""For connections without a request to close."""
FLUSH_SECONDS = 10.0
"""For the last records to reach Redis or the disk."""
WORK_SECONDS = 5.0
"""The part of FLUSH_SECONDS for post-request tasks (counting tokens). Then they are cancelled, and their records carry
estimates."""
CLOSE_SECONDS = 5.0
"""For background jobs to stop, and for connections to Redis, the database and engines to close."""

SHUTDOWN_SECONDS = CANCEL_SECONDS + SERVER_SECONDS + FLUSH_SECONDS + CLOSE_SECONDS
