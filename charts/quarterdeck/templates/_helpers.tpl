{{/* The prefix of all names: the release's name, or fullnameOverride. 40 characters leave room for suffixes. */}}
{{- define "quarterdeck.fullname" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Labels by which a component's pods are selected; they never change. (dict "root" $ "component" "gateway") */}}
{{- define "quarterdeck.selectorLabels" -}}
app.kubernetes.io/name: quarterdeck
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of an object. */}}
{{- define "quarterdeck.labels" -}}
{{ include "quarterdeck.selectorLabels" . }}
app.kubernetes.io/part-of: quarterdeck
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.global.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of a component's pods: without versions, so that a new chart alone restarts nothing. */}}
{{- define "quarterdeck.podLabels" -}}
{{- $own := include "quarterdeck.selectorLabels" . | fromYaml -}}
{{- $own = merge $own (dict "app.kubernetes.io/part-of" "quarterdeck") -}}
{{ toYaml (merge $own (.values.podLabels | default dict) .root.Values.global.labels) }}
{{- end -}}

{{/* An image. (dict "root" $ "image" .Values.gateway.image "registry" "localhost") */}}
{{- define "quarterdeck.image" -}}
{{- $registry := .image.registry | default .root.Values.global.imageRegistry | default (.registry | default "localhost") -}}
{{- $version := printf ":%s" (.image.tag | default .root.Chart.AppVersion) -}}
{{- if .image.digest -}}{{- $version = printf "@%s" .image.digest -}}{{- end -}}
{{- printf "%s/%s%s" $registry .image.repository $version -}}
{{- end -}}

{{/* Placement of a component's pods. (dict "root" $ "values" .Values.gateway "affinity" "<default, YAML>") */}}
{{- define "quarterdeck.placement" -}}
{{- with .root.Values.global.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .values.affinity }}
affinity: {{- toYaml .values.affinity | nindent 2 }}
{{- else if .affinity }}
affinity: {{- .affinity | nindent 2 }}
{{- end }}
{{- with .values.topologySpreadConstraints }}
topologySpreadConstraints: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* What every pod of the platform has: Pod Security `restricted`, no service links, credentials of registries. */}}
{{- define "quarterdeck.podBasics" -}}
enableServiceLinks: false
{{- with .Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext: {{- toYaml .Values.global.podSecurityContext | nindent 2 }}
{{- end -}}

{{/* Gateway and worker share SQLite's file, so they run on one node; otherwise a component's pods spread over nodes. */}}
{{- define "quarterdeck.affinity" -}}
{{- if and (eq (include "quarterdeck.isSqlite" .root) "true") (has .component (list "gateway" "worker")) -}}
podAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    - topologyKey: kubernetes.io/hostname
      labelSelector:
        matchLabels:
          app.kubernetes.io/name: quarterdeck
          app.kubernetes.io/instance: {{ .root.Release.Name }}
        matchExpressions:
          - {key: app.kubernetes.io/component, operator: In, values: [gateway, worker]}
{{- else -}}
podAntiAffinity:
  preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels: {{- include "quarterdeck.selectorLabels" . | nindent 12 }}
{{- end -}}
{{- end -}}

{{- define "quarterdeck.isSqlite" -}}
{{- not .Values.database.existingSecret -}}
{{- end -}}

{{/* Names of Secrets: the given one, or the chart's own. */}}
{{- define "quarterdeck.adminSecret" -}}
{{- .Values.gateway.adminKey.existingSecret | default (printf "%s-admin" (include "quarterdeck.fullname" .)) -}}
{{- end -}}
{{- define "quarterdeck.operatorTokenSecret" -}}
{{- .Values.operator.token.existingSecret | default (printf "%s-operator-token" (include "quarterdeck.fullname" .)) -}}
{{- end -}}
{{- define "quarterdeck.redisSecret" -}}
{{- .Values.redis.auth.existingSecret | default (printf "%s-redis" (include "quarterdeck.fullname" .)) -}}
{{- end -}}
{{- define "quarterdeck.databaseClaim" -}}
{{- .Values.database.sqlite.existingClaim | default (printf "%s-database" (include "quarterdeck.fullname" .)) -}}
{{- end -}}

{{/* Secrets, claims and service accounts of the platform itself. */}}
{{- define "quarterdeck.reserved" -}}
{{- $full := include "quarterdeck.fullname" . -}}
{{- $secrets := list (include "quarterdeck.adminSecret" .) (include "quarterdeck.operatorTokenSecret" .) (include "quarterdeck.redisSecret" .) .Values.engines.ray.token.existingSecret (printf "%s-endpoint-keys" $full) -}}
{{- $secrets = concat $secrets (list .Values.database.existingSecret .Values.redis.external.existingSecret .Values.gateway.ingress.tlsSecret) -}}
{{- range list .Values.gateway .Values.worker .Values.operator -}}
{{- range .extraEnvFrom -}}{{- with .secretRef -}}{{- $secrets = append $secrets .name -}}{{- end -}}{{- end -}}
{{- range .extraEnv -}}{{- with (.valueFrom | default dict).secretKeyRef -}}{{- $secrets = append $secrets .name -}}{{- end -}}{{- end -}}
{{- end -}}
{{- $claims := list (include "quarterdeck.databaseClaim" .) (printf "data-%s-redis-0" $full) .Values.gateway.spool.existingClaim -}}
{{- $accounts := list -}}
{{- range list "gateway" "worker" "operator" "secrets" -}}{{- $accounts = append $accounts (printf "%s-%s" $full .) -}}{{- end -}}
{{ toJson (dict "secrets" ($secrets | compact | uniq | sortAlpha) "claims" ($claims | compact | uniq) "serviceAccounts" $accounts) }}
{{- end -}}

{{/* Environment of gateway and worker: addresses of Redis and the database, the configuration they follow. */}}
{{- define "quarterdeck.platformEnv" -}}
- {name: QUARTERDECK_HOST, value: 0.0.0.0}
- name: QUARTERDECK_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- {name: QUARTERDECK_CONFIG_MAP, value: {{ include "quarterdeck.fullname" . }}-config}
- {name: QUARTERDECK_CONFIG, value: /etc/quarterdeck/quarterdeck.yaml}
- {name: QUARTERDECK_STATE, value: /var/lib/quarterdeck}
- {name: QUARTERDECK_CACHE, value: /tmp/quarterdeck}
{{- if .Values.redis.enabled }}
- name: REDIS_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ include "quarterdeck.redisSecret" . }}, key: {{ .Values.redis.auth.key }}}}
- {name: QUARTERDECK_REDIS_URL, value: "redis://:$(REDIS_PASSWORD)@{{ include "quarterdeck.fullname" . }}-redis:6379/0"}
{{- else }}
- name: QUARTERDECK_REDIS_URL
  valueFrom: {secretKeyRef: {name: {{ .Values.redis.external.existingSecret }}, key: {{ .Values.redis.external.key }}}}
{{- end }}
{{- if .Values.database.existingSecret }}
- name: QUARTERDECK_DATABASE_URL
  valueFrom: {secretKeyRef: {name: {{ .Values.database.existingSecret }}, key: {{ .Values.database.key }}}}
{{- end }}
{{- end -}}

{{/* Volumes and mounts of gateway and worker. */}}
{{- define "quarterdeck.platformMounts" -}}
- {name: config, mountPath: /etc/quarterdeck, readOnly: true}
- {name: state, mountPath: /var/lib/quarterdeck}
- {name: tmp, mountPath: /tmp}
{{- if and (not .Values.redis.enabled) .Values.redis.external.caSecret }}
- {name: redis-ca, mountPath: /etc/quarterdeck-tls/redis, readOnly: true}
{{- end }}
{{- if .Values.database.caSecret }}
- {name: database-ca, mountPath: /etc/quarterdeck-tls/database, readOnly: true}
{{- end }}
{{- end -}}
{{- define "quarterdeck.platformVolumes" -}}
- name: config
  configMap: {name: {{ include "quarterdeck.fullname" . }}-config, optional: true}
- name: tmp
  emptyDir: {}
{{- if and (not .Values.redis.enabled) .Values.redis.external.caSecret }}
- name: redis-ca
  secret: {secretName: {{ .Values.redis.external.caSecret }}}
{{- end }}
{{- if .Values.database.caSecret }}
- name: database-ca
  secret: {secretName: {{ .Values.database.caSecret }}}
{{- end }}
{{- end -}}

{{/* How long a gateway takes from SIGTERM to its exit: shutdown_delay_seconds, drain_seconds, settings/shutdown.py's 22 s. */}}
{{- define "quarterdeck.gatewayGraceSeconds" -}}
{{- $gateway := .Values.config.gateway | default dict -}}
{{- add 22 3 (ceil ($gateway.shutdown_delay_seconds | default 8)) (ceil ($gateway.drain_seconds | default 30)) -}}
{{- end -}}

{{/* The most gateways there may be at once. */}}
{{- define "quarterdeck.maxGateways" -}}
{{- if .Values.gateway.autoscaling.enabled }}{{ .Values.gateway.autoscaling.maxReplicas }}{{ else }}{{ .Values.gateway.replicas }}{{ end -}}
{{- end -}}
