"""Generated files of charts/quarterdeck: README.md and values.schema.json from values.yaml, and copies of the CRDs,
dashboards and rules that its templates render."""
