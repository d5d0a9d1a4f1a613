{{- define "pvmigrate.webhook.placement" -}}
affinity:
  {{- if .Values.webhook.affinity }}
  {{- toYaml .Values.webhook.affinity | nindent 2 }}
  {{- else }}
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "pvmigrate.selectorLabels" (list . "webhook") | nindent 14 }}
  {{- end }}
{{- with .Values.webhook.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.webhook.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.webhook.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}
