{{/* Outgoing rules of a component, if egress is restricted. */}}
{{- define "quarterdeck.egress" -}}
# DNS
- ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
{{- if .apiServer }}
- to: {{- toYaml .root.Values.networkPolicy.egress.apiServer | nindent 4 }}
{{- end }}
{{- if and .redis .root.Values.redis.enabled }}
- ports: [{port: redis, protocol: TCP}]
  to: [{podSelector: {matchLabels: {{ include "quarterdeck.selectorLabels" (dict "root" .root "component" "redis") | fromYaml | toJson }}}}]
{{- end }}
{{- if .gateway }}
- ports: [{port: http, protocol: TCP}]
  to: [{podSelector: {matchLabels: {{ include "quarterdeck.selectorLabels" (dict "root" .root "component" "gateway") | fromYaml | toJson }}}}]
{{- end }}
{{- if .engines }}
- to: [{podSelector: {matchExpressions: [{key: quarterdeck.dev/model, operator: Exists}]}}]
{{- end }}
{{- if .extra }}
{{- with .root.Values.networkPolicy.egress.extra }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end -}}
