{{- define "pvmigrate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" }}
{{- end }}

{{/* 52 characters, so that the Job's hash fits into the 63 of a label's value. */}}
{{- define "pvmigrate.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "pvmigrate.webhook.fullname" -}}
{{ include "pvmigrate.fullname" . }}-webhook
{{- end }}

{{/* Cluster-scoped objects: releases of one name may live in several namespaces. */}}
{{- define "pvmigrate.clusterName" -}}
{{ include "pvmigrate.fullname" . }}.{{ .Release.Namespace }}
{{- end }}

{{- define "pvmigrate.webhook.clusterName" -}}
{{ include "pvmigrate.webhook.fullname" . }}.{{ .Release.Namespace }}
{{- end }}

{{- define "pvmigrate.caSecret" -}}
{{ include "pvmigrate.fullname" . }}-webhook-ca
{{- end }}

{{- define "pvmigrate.serviceAccount" -}}
{{- $default := ternary (include "pvmigrate.fullname" .) "default" .Values.serviceAccount.create }}
{{- default $default .Values.serviceAccount.name }}
{{- end }}

{{- define "pvmigrate.webhook.serviceAccount" -}}
{{- $account := .Values.webhook.serviceAccount }}
{{- $default := ternary (include "pvmigrate.webhook.fullname" .) "default" $account.create }}
{{- default $default $account.name }}
{{- end }}

{{- define "pvmigrate.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}

{{/* What selects a component's pods: never changes in a release. Takes (list . component). */}}
{{- define "pvmigrate.selectorLabels" -}}
{{- $ := index . 0 -}}
app.kubernetes.io/name: {{ include "pvmigrate.name" $ }}
app.kubernetes.io/instance: {{ $.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* Takes (list . component). */}}
{{- define "pvmigrate.labels" -}}
{{- $ := index . 0 -}}
{{ include "pvmigrate.selectorLabels" . }}
app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $.Chart.Name $.Chart.Version | replace "+" "_" }}
{{- with $.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Both programs run with nothing but their own files, as nobody. */}}
{{- define "pvmigrate.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "pvmigrate.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
