"""Names of accounting's Redis keys.

All keys of an org carry one hash tag, so that Redis Cluster keeps them together.
"""


def stream_key(org: str) -> str:
    """The stream of records that the worker has not projected yet."""
    return f"ledger:{{{org}}}"


def revision_key(org: str) -> str:
    """Counts changes of the org's keys, teams and terms."""
    return f"revision:{{{org}}}"


def reservations_key(org: str) -> str:
    """Reservations of requests in flight, by request id."""
    return f"reservations:{{{org}}}"


def deadlines_key(org: str) -> str:
    """When each reservation expires."""
    return f"deadlines:{{{org}}}"


def settled_key(org: str, request_id: str) -> str:
    """Marks a request as settled."""
    return f"settled:{{{org}}}:{request_id}"


def content_key(org: str, request_id: str) -> str:
    """The captured input and output of a request, until the worker has stored it."""
    return f"content:{{{org}}}:{request_id}"


def tailing_key(org: str) -> str:
    """Exists while a client follows the org's requests as they reach the ledger."""
    return f"tailing:{{{org}}}"


def tail_key(org: str) -> str:
    """The latest records that reached the ledger while a client followed them."""
    return f"tail:{{{org}}}"


def cold_key(org: str) -> str:
    """Budgets to be recounted from the ledger: `<kind of period> <scope id>`."""
    return f"cold:{{{org}}}"


def rebuilding_key(org: str) -> str:
    """The lock of the worker that recounts the org's budgets. While it exists no record leaves the stream."""
    return f"rebuilding:{{{org}}}"


def bucket_key(org: str, scope: str) -> str:
    """The state of a scope's limits."""
    return f"bucket:{{{org}}}:{scope}"


def money_key(org: str, scope: str) -> str:
    """The state of a scope's budget."""
    return f"money:{{{org}}}:{scope}"


def refused_key(org: str, scope: str) -> str:
    """When a scope's budget refused a request last, for alerts."""
    return f"refused:{{{org}}}:{scope}"
