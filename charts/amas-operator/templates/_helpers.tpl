{{/* The name of all objects of the release. */}}
{{- define "amas-operator.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What the operator's pods are selected by. The first label never changes: NetworkPolicies of the databases admit it. */}}
{{- define "amas-operator.selectorLabels" -}}
app.kubernetes.io/name: amas-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "amas-operator.labels" -}}
{{ include "amas-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: amas
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "amas-operator.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "amas-operator.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{- define "amas-operator.image" -}}
{{- $repository := .Values.image.repository -}}
{{- with .Values.image.registry }}{{ $repository = printf "%s/%s" . $repository }}{{ end -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* The namespaces that the operator watches, comma separated; empty means all. */}}
{{- define "amas-operator.watchNamespaces" -}}
{{- if .Values.watchNamespaces -}}
{{- join "," .Values.watchNamespaces -}}
{{- else if eq .Values.rbac.scope "Namespaced" -}}
{{- .Release.Namespace -}}
{{- end -}}
{{- end -}}

{{/* "postgres:17=image,redis:8=image" */}}
{{- define "amas-operator.imageOverrides" -}}
{{- $pairs := list -}}
{{- range $engine, $image := .Values.images.overrides -}}
{{- $pairs = append $pairs (printf "%s=%s" $engine $image) -}}
{{- end -}}
{{- join "," $pairs -}}
{{- end -}}

{{/* What the operator may do in a namespace that it watches; a test takes each away and sees a request refused. Secrets are read by name: they can be neither listed nor watched. */}}
{{- define "amas-operator.rules" -}}
- apiGroups: [amas.dev]
  resources: [amasdatabases, cachepolicies, graphschemas]
  verbs: [list, watch]
- apiGroups: [amas.dev]
  resources: [amasdatabases/status, cachepolicies/status, graphschemas/status]
  verbs: [patch]
# The finalizer of deletionPolicy Delete.
- apiGroups: [amas.dev]
  resources: [amasdatabases]
  verbs: [patch]
# Needed where the API server asks it of whoever makes children that their owner waits for, as OpenShift does.
- apiGroups: [amas.dev]
  resources: [amasdatabases/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [services, configmaps, persistentvolumeclaims, serviceaccounts]
  verbs: [get, watch, create, update, delete]
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, watch, create, update, delete]
# The Job that tells of a failure is kept beyond the time after which others are collected.
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, watch, create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, watch, create, update, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, watch, create, update, delete]
# A pod that cannot run stands in the way of its own correction, so it is deleted; an annotation on a pod makes its node bring a changed
# configuration at once.
- apiGroups: [""]
  resources: [pods]
  verbs: [watch, patch, delete]
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, update, delete]
{{- if eq .Values.secrets.watch "Labelled" }}
# Those with the label amas.dev/watch=true; the API knows no narrower right.
- apiGroups: [""]
  resources: [secrets]
  verbs: [watch]
{{- end }}
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- if .Values.certManager.enabled }}
# The servers' certificates from an issuer (spec.tls.issuerRef), and what is wrong with that.
- apiGroups: [cert-manager.io]
  resources: [certificates]
  verbs: [get, create, update, delete]
- apiGroups: [cert-manager.io]
  resources: [issuers]
  verbs: [get]
{{- end }}
{{- end -}}
