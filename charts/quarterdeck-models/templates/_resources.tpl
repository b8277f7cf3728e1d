{{/* The objects of a kind. (dict "root" $ "kind" "Model" "specs" .Values.models) */}}
{{- define "quarterdeck-models.resources" -}}
{{- range $name, $spec := .specs }}
{{- if kindIs "map" $spec }}
{{- if dig "enabled" true $spec }}
---
apiVersion: quarterdeck.dev/v1alpha1
kind: {{ $.kind }}
metadata:
  name: {{ $name | quote }}
  namespace: {{ $.root.Release.Namespace }}
  labels:
    app.kubernetes.io/instance: {{ $.root.Release.Name }}
    app.kubernetes.io/part-of: quarterdeck
    app.kubernetes.io/managed-by: {{ $.root.Release.Service }}
    helm.sh/chart: {{ printf "%s-%s" $.root.Chart.Name $.root.Chart.Version | replace "+" "_" }}
    {{- with $.root.Values.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $.root.Values.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec: {{- omit $spec "enabled" | toYaml | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
