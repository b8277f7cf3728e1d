"""Chat completions of `store: true`."""
