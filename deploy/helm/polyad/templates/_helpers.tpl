{{- define "polyad.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains (default .Chart.Name .Values.nameOverride) .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (default .Chart.Name .Values.nameOverride) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "polyad.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "polyad.labels" -}}
{{ include "polyad.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "polyad.kind" -}}
{{- if .Values.state.persistent }}StatefulSet{{ else }}Deployment{{ end -}}
{{- end -}}

{{- /* The configuration file. What the chart decides beats .Values.config. */ -}}
{{- define "polyad.config" -}}
{{- $admin := ternary "127.0.0.1:50052" "0.0.0.0:50052" .Values.adminLocal -}}
{{- $config := dict "model" .Values.model.path "state_dir" "/var/lib/polyad/state"
      "grpc_listen" "0.0.0.0:50051" "admin_listen" $admin "http_listen" "0.0.0.0:8080"
      "drain_ms" (mul .Values.drainSeconds 1000) -}}
{{- with .Values.model.name }}{{- $_ := set $config "model_name" . }}{{- end -}}
{{- if .Values.adapters.volume }}{{- $_ := set $config "adapter_root" (list "/var/lib/polyad/adapters") }}{{- end -}}
{{- $preload := list -}}
{{- range .Values.adapters.preload }}
{{- $preload = append $preload (printf "%s=/var/lib/polyad/adapters/%s" .name .path) }}
{{- end -}}
{{- if .Values.adapters.watch.enabled }}{{- $_ := set $config "adapters_from" "/etc/polyad/adapters/adapters.json" }}{{- end -}}
{{- with $preload }}{{- $_ := set $config "adapter" . }}{{- end -}}
{{- if .Values.tenants.existingSecret }}{{- $_ := set $config "tenants_file" "/etc/polyad/tenants/tenants.json" }}{{- end -}}
{{- if .Values.tokens.existingSecret }}
{{- $_ := set $config "admin_token_file" "/etc/polyad/tokens/admin.token" }}
{{- $_ := set $config "metrics_token_file" "/etc/polyad/tokens/metrics.token" }}
{{- end -}}
{{- if .Values.tls.existingSecret }}
{{- $_ := set $config "tls_cert" "/etc/polyad/tls/tls.crt" }}
{{- $_ := set $config "tls_key" "/etc/polyad/tls/tls.key" }}
{{- if .Values.tls.clientCa }}{{- $_ := set $config "tls_client_ca" "/etc/polyad/tls/ca.crt" }}{{- end }}
{{- if .Values.tls.requireClientCert }}{{- $_ := set $config "tls_require_client_cert" true }}{{- end }}
{{- end -}}
{{- if .Values.insecure }}{{- $_ := set $config "insecure" true }}{{- end -}}
{{- merge $config .Values.config | toPrettyJson -}}
{{- end -}}

{{- /* A probe of a path of HTTP; kubelet has no certificate to show where one is required: there a handshake is asked for. */ -}}
{{- define "polyad.probe" -}}
{{- if .root.Values.tls.requireClientCert -}}
exec:
  command: [/usr/bin/polyad, probe, --config, /etc/polyad/polyad.json]
{{- else -}}
httpGet:
  path: {{ .path }}
  port: http
  scheme: {{ ternary "HTTPS" "HTTP" (ne .root.Values.tls.existingSecret "") }}
{{- end -}}
{{- end -}}
