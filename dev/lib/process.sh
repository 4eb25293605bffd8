# shellcheck shell=bash
# The two "machines" of a cluster, `control` and `node`: each is a PID namespace whose process 1 is
# amas-init. Ending process 1 makes the kernel end all the rest, pods and shims included.

# Start time of a process: with its pid it names one process for good, even after the pid is used again.
birth() { [ -r "/proc/$1/stat" ] && sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

machine_pid() { # MACHINE: prints the host's pid of its process 1, if that runs
  local pid born
  [ -r "$STATE/$1.pid" ] || return 1
  read -r pid born <"$STATE/$1.pid"
  [ "$(birth "$pid")" = "$born" ] || return 1
  printf '%s\n' "$pid"
}

# machine_start MACHINE UNSHARE-OPTIONS... -- CMD...: CMD must end in exec amas-init.
machine_start() {
  local machine=$1 options=() outer pid=""
  shift
  while [ "$1" != -- ]; do options+=("$1"); shift; done
  shift
  setsid unshare --pid --fork "${options[@]}" "$@" >>"$LOG/$machine-init.log" 2>&1 </dev/null 9>&- &
  outer=$!
  disown
  for _ in $(seq 200); do
    pid=$(cat "/proc/$outer/task/$outer/children" 2>/dev/null) && pid=${pid// /}
    [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = amas-init ] && break
    [ -d "/proc/$outer" ] || die "the $machine machine did not start: $(tail -3 "$LOG/$machine-init.log")"
    sleep 0.05
  done
  [ -n "$pid" ] || die "the $machine machine did not start"
  printf '%s %s\n' "$pid" "$(birth "$pid")" >"$STATE/$machine.pid"
}

# Abrupt, like a power cut: what a database needs to survive.
machine_stop() { # MACHINE
  local pid
  if pid=$(machine_pid "$1"); then
    kill -KILL "$pid" 2>/dev/null || true
    # Process 1 is reaped only when the last process of its namespace is gone.
    wait_until 30 "the end of the $1 machine" test ! -d "/proc/$pid"
  fi
  rm -f "$STATE/$1.pid"
}

# in_machine MACHINE CMD...: run CMD inside (process, mount and network namespace of the machine).
in_machine() {
  local pid
  pid=$(machine_pid "$1") || die "cluster '$NAME': its $1 machine does not run"
  shift
  nsenter --target "$pid" --pid --mount --net="$NETNS_FILE" env PATH="$BIN:$PATH" "$@"
}

# daemon MACHINE COMPONENT CMD...: start CMD there in the background, output to its log.
daemon() {
  local machine=$1 component=$2
  shift 2
  # shellcheck disable=SC2016  # expanded by the inner shell
  in_machine "$machine" sh -c 'exec 9>&-; log=$1; shift; setsid "$@" >>"$log" 2>&1 </dev/null &' \
    daemon "$LOG/$component.log" "$@"
}

# Every process that lives in the machine's PID namespace: pid and command.
machine_processes() { # MACHINE
  local pid ns other
  pid=$(machine_pid "$1") || return 0
  ns=$(readlink "/proc/$pid/ns/pid")
  for other in /proc/[0-9]*; do
    [ "$(readlink "$other/ns/pid" 2>/dev/null)" = "$ns" ] || continue
    printf '%s %s\n' "${other#/proc/}" "$(cat "$other/comm" 2>/dev/null)"
  done
}
