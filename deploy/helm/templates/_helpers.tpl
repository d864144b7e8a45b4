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
  "SWITCHBOARD_ADMIN__LISTEN" "0.0.0.0:9091"
  "SWITCHBOARD_LOG__FORMAT" "json"
  "SWITCHBOARD_DRAIN__DEADLINE" "20s"
  "OTEL_SERVICE_NAME" "switchboard"
  "OTEL_METRICS_EXPORTER" "none" -}}
{{- toYaml (merge (deepCopy .Values.settings) $own) }}
{{- end }}
