{{- define "pvmigrate.job.name" -}}
{{ include "pvmigrate.fullname" . }}-{{ include "pvmigrate.job.template" . | sha256sum | trunc 10 }}
{{- end }}

{{- define "pvmigrate.job.template" -}}
metadata:
  labels:
    {{- include "pvmigrate.labels" (list . "job") | nindent 4 }}
    {{- with .Values.job.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.job.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- include "pvmigrate.job.podSpec" (list . "run" (include "pvmigrate.job.self" .)) | nindent 2 }}
{{- end }}

{{- define "pvmigrate.job.self" -}}
{name: PVMIGRATE_JOB, valueFrom: {fieldRef: {fieldPath: "metadata.labels['batch.kubernetes.io/job-name']"}}}
{{- end }}

{{/* Takes (list . verb variable): the last one says which Job it is about. */}}
{{- define "pvmigrate.job.podSpec" -}}
{{- $ := index . 0 -}}
restartPolicy: Never
terminationGracePeriodSeconds: 30
serviceAccountName: {{ include "pvmigrate.serviceAccount" $ }}
automountServiceAccountToken: true
enableServiceLinks: false
securityContext:
  {{- include "pvmigrate.podSecurityContext" $ | nindent 2 }}
{{- with $.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $.Values.job.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $.Values.job.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $.Values.job.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
tolerations:
  # Five minutes, the default, are five minutes of a stopped application.
  - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 5}
  - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 5}
  {{- with $.Values.job.tolerations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
containers:
  - name: pvmigrate
    image: {{ include "pvmigrate.image" $ }}
    imagePullPolicy: {{ $.Values.image.pullPolicy }}
    command: ["/pvmigrate"]
    args: [{{ index . 1 }}]
    env:
      {{- include "pvmigrate.job.env" $ | nindent 6 }}
      - {{ index . 2 }}
    securityContext:
      {{- include "pvmigrate.securityContext" $ | nindent 6 }}
    {{- with $.Values.job.resources }}
    resources:
      {{- toYaml . | nindent 6 }}
    {{- end }}
{{- end }}
