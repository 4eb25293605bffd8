# shellcheck shell=bash
# The part of the demo that looks: waiting for Ready, then what came up. Sourced after lib.sh, never run.

NAMESPACE=agents
KINDS=amasdb,cachepol,graphschema

own_cluster() { [ -n "${KUBECONFIG:-}" ]; }
kubectl_() { if own_cluster; then kubectl "$@"; else dev/kubectl "$@"; fi; }
heading() { if [ -t 1 ]; then printf '\n\033[1m%s\033[0m\n' "$*"; else printf '\n%s\n' "$*"; fi; }

# One line an object: kind/name, its reason, and whether it is Ready for what is asked of it now.
states() {
  kubectl_ get $KINDS -n $NAMESPACE -o json | jq -r '.items[]
    | (.status.conditions // [] | map({(.type): .}) | add // {}) as $c
    | ($c.Ready.status == "True" and .status.observedGeneration == .metadata.generation) as $ready
    | "\(.kind)/\(.metadata.name) \($ready) \($c.Ready.reason // "NotSeenYet") \($c.Ready.message // "" | gsub("\n"; " ") | .[0:110])"'
}

# Prints every change until all three are Ready; on timeout what stands in the way.
watch_until_ready() { # SECONDS
  local deadline=$(($(date +%s) + $1)) before="" now began
  began=$(date +%s%N)
  until [ -n "$before" ] && ! grep -qv '^[^ ]* true ' <<<"$before"; do
    [ "$(date +%s)" -lt "$deadline" ] || { why_not; die "not Ready after $1 s"; }
    now=$(states || true) # an API server that is away for a moment is no reason to give up
    if [ "$now" != "$before" ]; then
      comm -13 <(sort <<<"$before") <(sort <<<"$now") | while read -r object _ reason message; do
        progress "$(printf '%-18s %-16s %s' "$object" "$reason" "$message")"
      done
      before=$now
    fi
    sleep 0.3
  done
  progress "all three are Ready, $(seconds_since "$began") s after they were applied"
}

why_not() {
  kubectl_ get $KINDS,statefulsets,jobs,pods,pvc -n $NAMESPACE -o wide >&2
  kubectl_ get events -n $NAMESPACE --sort-by=.lastTimestamp 2>/dev/null | tail -15 >&2
}

secret() { kubectl_ get secret -n $NAMESPACE "$1" -o "jsonpath={.data.$2}" | base64 -d; }
image_of() { kubectl_ get pod -n $NAMESPACE "$1" -o 'jsonpath={.spec.containers[0].image}'; }

has_ended() { [[ $(kubectl_ get pod -n $NAMESPACE "$1" -o 'jsonpath={.status.phase}') =~ ^(Succeeded|Failed)$ ]]; }

# Runs a command as an application would: in a pod of its own that knows nothing but the published Secret.
as_client() { # NAME IMAGE SECRET SHELL_COMMAND
  kubectl_ delete pod -n $NAMESPACE "$1" --ignore-not-found --wait >/dev/null
  jq -n --arg name "$1" --arg image "$2" --arg secret "$3" --arg command "$4" '{
    apiVersion: "v1", kind: "Pod", metadata: {name: $name},
    spec: {
      restartPolicy: "Never", automountServiceAccountToken: false, terminationGracePeriodSeconds: 0,
      securityContext: {runAsNonRoot: true, runAsUser: 999, seccompProfile: {type: "RuntimeDefault"}},
      containers: [{name: "client", image: $image, command: ["sh", "-c", $command], envFrom: [{secretRef: {name: $secret}}],
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: ["ALL"]}}}]}}' |
    kubectl_ apply -n $NAMESPACE -f - >/dev/null
  wait_until 60 "the end of pod $1" has_ended "$1"
  kubectl_ logs -n $NAMESPACE "$1"
  kubectl_ delete pod -n $NAMESPACE "$1" --wait=false >/dev/null
}

show_platform() {
  heading "kubectl get amas -n $NAMESPACE"
  kubectl_ get amas -n $NAMESPACE
  heading "what the operator made"
  kubectl_ get statefulsets,jobs,pods,services,persistentvolumeclaims,networkpolicies -n $NAMESPACE -l amas.dev/database=amas -o name
  heading "connection values"
  kubectl_ get amasdb amas -n $NAMESPACE -o jsonpath='{range .status.secrets[*]}secret/{@}{"\n"}{end}'
  heading "PostgreSQL, as the application (Secret amas-role-amas-app)"
  # shellcheck disable=SC2016  # expanded in the pod
  as_client demo-sql "$(image_of amas-postgres-0)" amas-role-amas-app 'psql "$DATABASE_URL" -X -c "
    SELECT (SELECT count(*) FROM information_schema.tables WHERE table_schema = '\''public'\'' AND table_type = '\''BASE TABLE'\'') AS tables,
           (SELECT count(*) FROM information_schema.views WHERE table_schema = '\''public'\'') AS views,
           (SELECT count(*) FROM agents) AS agents, current_user, current_setting('\''timezone'\'') AS timezone, current_setting('\''statement_timeout'\'') AS statement_timeout"'
  heading "Redis, as the application (Secret amas-redis-connection)"
  # shellcheck disable=SC2016
  as_client demo-cache "$(image_of amas-redis-0)" amas-redis-connection 'redis-cli --no-auth-warning -u "$REDIS_URL" <<C
config get maxmemory-policy
set amas:agent:performance:orchestrator {} ex 300
ttl amas:agent:performance:orchestrator
C'
  heading "Neo4j, as the operator reads it back"
  kubectl_ get graphschema amas -n $NAMESPACE -o jsonpath='{range .status.constraints[*]}constraint {.name}: {.state}{"\n"}{end}{range .status.indexes[*]}index {.name}: {.state}{"\n"}{end}'
}

say_next() {
  local k=dev/kubectl
  ! own_cluster || k=kubectl
  heading "try next"
  cat <<T
  $k describe amasdb amas -n $NAMESPACE            # every condition, and the facts of each store
  $k delete pod amas-postgres-0 -n $NAMESPACE      # Ready and Available fall, and come back with the data
  $k get amas -n $NAMESPACE -w                     # what a pipeline sees
  $k get secret amas-role-amas-app -n $NAMESPACE -o jsonpath='{.data.DATABASE_URL}' | base64 -d
  make down                                       # removes all of it
T
}
