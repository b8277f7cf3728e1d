"""Kubernetes without a Kubernetes client: custom resources, their schemas, and the documents compiled from them."""
