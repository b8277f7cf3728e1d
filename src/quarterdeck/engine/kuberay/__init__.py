"""Engines in a Ray cluster that KubeRay started. Nothing here starts or stops Ray.

* serve_app: builds the Serve application of one Model, inside the Ray cluster
* __main__, door, dashboard: the engine door beside the head, which lists the replicas
* drain: the `preStop` hook of the cluster's pods
"""
