"""What a Model's objects should be. Pure: from a spec and the operator's configuration to manifests.

One module per backend (`deployment`, `rayservice`), each with `render`, `classify` and `replicas`; `backends` chooses.
"""
