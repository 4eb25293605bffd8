# shellcheck shell=bash
# The cgroup under which the cluster's kubelet keeps its pods, in every hierarchy of the machine.

cgroup_roots() { awk '$3 == "cgroup" || $3 == "cgroup2" {print $2}' /proc/mounts; }

cgroups_up() {
  local root file
  for root in $(cgroup_roots); do
    mkdir -p "$root/$CGROUP"
    # A cpuset of version 1 starts empty, and nothing may run in it until it is filled.
    for file in cpuset.cpus cpuset.mems; do
      if [ -f "$root/tasks" ] && [ -f "$root/$file" ]; then
        cat "$root/$file" >"$root/$CGROUP/$file"
      fi
    done
  done
}

cgroups_down() {
  local root
  for root in $(cgroup_roots); do
    [ -d "$root/$CGROUP" ] || continue
    # The kernel frees a cgroup a moment after its last process: try again for a while.
    for _ in $(seq 50); do
      find "$root/$CGROUP" -depth -type d -exec rmdir {} + 2>/dev/null || true
      [ -d "$root/$CGROUP" ] || break
      sleep 0.1
    done
    [ ! -d "$root/$CGROUP" ] || say "note: could not remove cgroup $root/$CGROUP"
  done
}
