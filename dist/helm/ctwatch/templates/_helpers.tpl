{{- define "ctwatch.selector" -}}
app.kubernetes.io/name: ctwatch
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "ctwatch.labels" -}}
{{ include "ctwatch.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}
