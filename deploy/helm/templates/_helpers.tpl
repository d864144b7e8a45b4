{{- define "switchboard.selector" -}}
app.kubernetes.io/name: {{ .Release.Name }}
{{- end }}

{{- define "switchboard.labels" -}}
{{ include "switchboard.selector" . }}
app.kubernetes.io/part-of: switchboard
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- /* The settings that a pod needs, and those of the values over them. */ -}}
{{- define "switchboard.settings" -}}
{{- $own := dict
  "SWITCHBOARD_ADMIN__LISTEN" "[::]:9091"
  "SWITCHBOARD_WORKERS" "2"
  "SWITCHBOARD_LOG__FORMAT" "json"
  "SWITCHBOARD_DRAIN__DEADLINE" "20s"
  "OTEL_SERVICE_NAME" "switchboard"
  "OTEL_METRICS_EXPORTER" "none" -}}
{{- if .Values.autoscaling.enabled }}
{{- $_ := set $own "SWITCHBOARD_SESSION__MAX_AGE" "10m" }}
{{- end }}
{{- toYaml (merge (deepCopy .Values.settings) $own) }}
{{- end }}
