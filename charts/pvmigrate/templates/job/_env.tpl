{{- define "pvmigrate.job.env" -}}
{{- $source := required "sourceSC is required: the StorageClass whose claims are moved (--set sourceSC=…)" .Values.sourceSC }}
{{- $dest := required "destSC is required: the StorageClass that the claims are moved to (--set destSC=…)" .Values.destSC }}
{{- if eq $source $dest }}
{{- fail (printf "sourceSC and destSC are both %q: name two different StorageClasses" $source) }}
{{- end -}}
- {name: PVMIGRATE_SOURCE_SC, value: {{ $source | quote }}}
- {name: PVMIGRATE_DEST_SC, value: {{ $dest | quote }}}
- {name: PVMIGRATE_NAMESPACES, value: {{ join "," .Values.namespaces | quote }}}
- {name: PVMIGRATE_SELECTOR, value: {{ .Values.selector | quote }}}
- {name: PVMIGRATE_CLAIMS, value: {{ join "," .Values.claims | quote }}}
- {name: PVMIGRATE_EXCLUDE_CLAIMS, value: {{ join "," .Values.excludeClaims | quote }}}
- {name: PVMIGRATE_INCLUDE_UNCLASSED, value: {{ .Values.includeUnclassed | quote }}}
- {name: PVMIGRATE_RUN_TOKEN, value: {{ include "pvmigrate.text" .Values.runToken | quote }}}
- {name: PVMIGRATE_SOURCE_VOLUMES, value: {{ .Values.sourceVolumes }}}
- {name: PVMIGRATE_SIZES, value: {{ include "pvmigrate.sizes" .Values.sizes | quote }}}
- {name: PVMIGRATE_SET_DEFAULT, value: {{ .Values.setDefault | quote }}}
- {name: PVMIGRATE_SKIP_SOURCE_CHECK, value: {{ .Values.skipSourceCheck | quote }}}
- {name: PVMIGRATE_PREFLIGHT_ONLY, value: {{ .Values.preflightOnly | quote }}}
- {name: PVMIGRATE_SKIP_PREFLIGHT, value: {{ .Values.skipPreflight | quote }}}
- {name: PVMIGRATE_WARM, value: {{ .Values.warm | quote }}}
- {name: PVMIGRATE_RETRY_FAILED, value: {{ .Values.retryFailed | quote }}}
- {name: PVMIGRATE_FREEZE, value: {{ .Values.freeze }}}
- {name: PVMIGRATE_BARE_PODS, value: {{ .Values.barePods }}}
- {name: PVMIGRATE_JOBS, value: {{ .Values.jobs }}}
- {name: PVMIGRATE_STATEFUL_SET_TEMPLATES, value: {{ .Values.statefulSetTemplates }}}
- {name: PVMIGRATE_PARALLELISM_GROUPS, value: {{ int64 .Values.parallelism.groups | quote }}}
- {name: PVMIGRATE_PARALLELISM_PER_NODE, value: {{ int64 .Values.parallelism.perNode | quote }}}
- {name: PVMIGRATE_PARALLELISM_STOPPED_PER_NODE, value: {{ int64 .Values.parallelism.stoppedPerNode | quote }}}
- {name: PVMIGRATE_HOLD_IGNORE_BUDGETS, value: {{ .Values.hold.ignoreBudgets | quote }}}
- {name: PVMIGRATE_LOG, value: {{ .Values.log | quote }}}
- {name: PVMIGRATE_RELEASE, value: {{ .Release.Name | quote }}}
- {name: PVMIGRATE_RELEASE_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
- {name: PVMIGRATE_POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
- {name: PVMIGRATE_IMAGE, value: {{ include "pvmigrate.image" . | quote }}}
- {name: PVMIGRATE_IMAGE_PULL_POLICY, value: {{ .Values.image.pullPolicy }}}
- {name: PVMIGRATE_IMAGE_PULL_SECRETS, value: {{ include "pvmigrate.imagePullSecrets" . | quote }}}
- {name: PVMIGRATE_WEBHOOK_SERVICE, value: {{ include "pvmigrate.webhook.fullname" . }}}
- {name: PVMIGRATE_CA_SECRET, value: {{ include "pvmigrate.caSecret" . }}}
{{- if .Values.rbac.create }}
- {name: PVMIGRATE_OWNER, value: {{ include "pvmigrate.clusterName" . }}}
- {name: PVMIGRATE_OWNER_ROLE, value: {{ include "pvmigrate.fullname" . }}}
{{- end }}
{{- with .Values.timeouts }}
- {name: PVMIGRATE_POD_READY_SECONDS, value: {{ int64 .podReadySeconds | quote }}}
- {name: PVMIGRATE_STAGE_SECONDS, value: {{ int64 .stageSeconds | quote }}}
- {name: PVMIGRATE_FREEZE_SECONDS, value: {{ int64 .freezeSeconds | quote }}}
- {name: PVMIGRATE_VOLUME_DELETE_SECONDS, value: {{ int64 .volumeDeleteSeconds | quote }}}
{{- end }}
{{- with .Values.mover.resources }}
- {name: PVMIGRATE_MOVER_RESOURCES, value: {{ toJson . | quote }}}
{{- end }}
{{- with .Values.mover.priorityClassName }}
- {name: PVMIGRATE_MOVER_PRIORITY_CLASS_NAME, value: {{ . | quote }}}
{{- end }}
{{- with .Values.mover.tolerations }}
- {name: PVMIGRATE_MOVER_TOLERATIONS, value: {{ toJson . | quote }}}
{{- end }}
{{- with .Values.mover.labels }}
- {name: PVMIGRATE_MOVER_LABELS, value: {{ toJson . | quote }}}
{{- end }}
{{- with .Values.mover.annotations }}
- {name: PVMIGRATE_MOVER_ANNOTATIONS, value: {{ toJson . | quote }}}
{{- end }}
{{- with .Values.mover.extraCapabilities }}
- {name: PVMIGRATE_MOVER_EXTRA_CAPABILITIES, value: {{ join "," . | quote }}}
{{- end }}
{{- with .Values.mover }}
- {name: PVMIGRATE_MOVER_VERIFY, value: {{ .verify }}}
- {name: PVMIGRATE_MOVER_EXCLUDE, value: {{ join "\n" .exclude | quote }}}
- {name: PVMIGRATE_MOVER_BANDWIDTH, value: {{ include "pvmigrate.text" .bandwidth | quote }}}
- {name: PVMIGRATE_MOVER_LOSE, value: {{ join "," .lose | quote }}}
- {name: PVMIGRATE_MOVER_SELINUX, value: {{ .selinux | quote }}}
- {name: PVMIGRATE_MOVER_THREADS, value: {{ int64 .threads | quote }}}
{{- end }}
{{- end }}

{{/* A number in a values file is a float to Helm: 20260131 must not become 2.0260131e+07. */}}
{{- define "pvmigrate.text" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ int64 . }}{{ end }}
{{- end }}

{{- define "pvmigrate.sizes" -}}
{{- range $i, $claim := keys . | sortAlpha }}{{ if $i }},{{ end }}{{ $claim }}={{ include "pvmigrate.text" (get $ $claim) }}{{ end }}
{{- end }}

{{- define "pvmigrate.imagePullSecrets" -}}
{{- range $i, $secret := .Values.imagePullSecrets }}{{ if $i }},{{ end }}{{ $secret.name }}{{ end }}
{{- end }}
