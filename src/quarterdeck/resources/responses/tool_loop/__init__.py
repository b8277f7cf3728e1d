"""Tools that the platform executes for a response: what the model may call, approvals, and when it has to answer."""
