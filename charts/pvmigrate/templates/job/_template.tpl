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
  restartPolicy: Never
  terminationGracePeriodSeconds: 30
  serviceAccountName: {{ include "pvmigrate.serviceAccount" . }}
  automountServiceAccountToken: true
  enableServiceLinks: false
  securityContext:
    {{- include "pvmigrate.podSecurityContext" . | nindent 4 }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.job.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.job.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.job.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  tolerations:
    # Five minutes, the default, are five minutes of a stopped application.
    - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 5}
    - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 5}
    {{- with .Values.job.tolerations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  containers:
    - name: pvmigrate
      image: {{ include "pvmigrate.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      command: ["/pvmigrate"]
      args: ["run"]
      env:
        {{- include "pvmigrate.job.env" . | nindent 8 }}
      securityContext:
        {{- include "pvmigrate.securityContext" . | nindent 8 }}
      {{- with .Values.job.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end }}
