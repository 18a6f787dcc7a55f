#!/bin/sh
# Starts hpc-queue on this machine alone, to try it: the edge with its queues, a daemon, and a shell in which the
# programs work. All of it ends with the shell; data, results and logs stay, and the next time goes on with them. While
# one is up, a further one gives a further shell.
#
#   hpc-queue-up                        a shell
#   hpc-queue-up --image runtime.sif    jobs run in containers of this image; without it, in none
#   hpc-queue-up -- COMMAND             this command in place of the shell; its exit code is that of hpc-queue-up
#
# HPC_QUEUE_UP_DIR   where everything lies   [$XDG_DATA_HOME/hpc-queue/up, or ~/.local/share/hpc-queue/up]
set -eu

fail() {
  printf 'hpc-queue-up: %s\n' "$*" >&2
  exit 1
}

image=
while test $# -gt 0; do
  case $1 in
    -h | --help)
      sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p;}' "$0"
      exit 0
      ;;
    --image)
      test $# -ge 2 || fail '--image needs a file'
      image=$2
      shift 2
      ;;
    --)
      shift
      break
      ;;
    *) fail "there is no argument $1; --help shows what there is" ;;
  esac
done

# The programs lie beside this script.
here=$(cd "$(dirname "$0")" && pwd)
test -n "${HPC_QUEUE_UP_DIR:-}${XDG_DATA_HOME:-}${HOME:-}" || fail 'HOME is not set; set HPC_QUEUE_UP_DIR'
dir=${HPC_QUEUE_UP_DIR:-${XDG_DATA_HOME:-$HOME/.local/share}/hpc-queue/up}
case $dir$here$image in
  *[\'\"\\]*) fail 'a path has a quote or a backslash, which settings cannot hold; set HPC_QUEUE_UP_DIR, or move it' ;;
esac
for program in local-edge hpc-consumer laptop-consumer; do
  test -x "$here/$program" || fail "$program is not in $here, where this script is"
done
if test -n "$image"; then
  test -r "$image" || fail "$image cannot be read"
  image=$(cd "$(dirname "$image")" && pwd)/$(basename "$image")
  runtime="image = '$image'"
else
  test -x "$here/task-runner" || fail "task-runner is not in $here; give an image with --image"
  runtime="runtime = 'bare'
command = ['$here/task-runner']"
fi
umask 077
# What a person fetches here into a folder `results` must not get among the jobs of the cluster.
mkdir -p "$dir/cluster"
dir=$(cd "$dir" && pwd)
site=$dir/cluster/site.toml

# Settings of this shell would go before those of the file.
for name in $(env | sed -n 's/^\([A-Z_]*\)=.*/\1/p'); do
  case $name in
    HPC_QUEUE_* | CF_* | LOCAL_EDGE_* | LAPTOP_* | API_KEY* | SITE_* | PRODUCER_URL | EDGE_URL) unset "$name" ;;
    APPTAINER_IMAGE | APPTAINER_OCI_REF | RESULTS_DIR | STATE_DIR | RUNTIME | CONTAINER_CMD) unset "$name" ;;
  esac
done

# For the shell, and for the daemon: what jobs bring is run by `task-runner`.
PATH=$here:$PATH
export PATH

daemon=
edge=
keeper() { # The process id of the keeper of the daemon's runs, if it runs.
  pid=$(sed -n 's/.*"pid": *\([0-9][0-9]*\).*/\1/p' "$dir/cluster/state/keeper/keeper.json" 2>/dev/null) || return 0
  if test -n "$pid" && tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -qx keeper; then printf '%s' "$pid"; fi
}
end() { # PROCESS
  test -n "$1" && kill -TERM "$1" 2>/dev/null || return 0
  wait "$1" 2>/dev/null || true
}
down() {
  trap '' HUP INT TERM
  # In this order: a daemon whose keeper goes would start another one.
  # Without a daemon of ours, a keeper there is that of another hpc-queue-up.
  test -n "$daemon" || { end "$edge" && return 0; }
  end "$daemon"
  pid=$(keeper)
  if test -n "$pid"; then kill -TERM "$pid" 2>/dev/null || true; fi
  tries=0
  while test -n "$(keeper)" && test $tries -lt 600; do
    sleep 0.1
    tries=$((tries + 1))
  done
  end "$edge"
}
trap down EXIT
trap 'exit 129' HUP
trap 'exit 143' TERM
# From the keyboard it is for whoever has the terminal.
trap : INT

wait_for() { # PROCESS LOG WHAT COMMAND...
  process=$1 log=$2 what=$3
  shift 3
  tries=0
  until "$@" >/dev/null 2>&1; do
    if ! kill -0 "$process" 2>/dev/null; then
      tail -n 5 "$log" >&2
      fail "$what has ended; $log says why. Is another hpc-queue-up running?"
    fi
    test $tries -lt 600 || fail "$what is not up after a minute; see $log"
    sleep 0.1
    tries=$((tries + 1))
  done
}

is_up() {
  "$here/local-edge" doctor --data-dir "$dir/edge" --output json 2>/dev/null |
    grep -q '"check":"data directory","verdict":"ok"'
}

start() {
  # Its appearance says that the edge is up.
  rm -f "$dir/edge.env"
  "$here/local-edge" serve --listen 127.0.0.1:0 --data-dir "$dir/edge" --env-file "$dir/edge.env" \
    >"$dir/edge.log" 2>&1 &
  edge=$!
  wait_for "$edge" "$dir/edge.log" 'the edge' test -s "$dir/edge.env"
  {
    cat "$dir/edge.env"
    printf '%s\n' "RESULTS_DIR='$dir/cluster/results'" "STATE_DIR='$dir/cluster/state'" \
      "SITE_FILE='$site'" "LAPTOP_DATA_DIR='$dir/laptop'" \
      POLL_INTERVAL_SECONDS=0.5 POLL_INTERVAL_MAX_SECONDS=0.5 RESULTS_POLL_INTERVAL_SECONDS=0.5 DRAIN_TIMEOUT_SECONDS=1
  } >"$dir/.env"

  cat >"$site" <<EOF
# What runs here, and how; docs/site.md explains it. Made anew at each start.
[pool.default]
default = true
$runtime

# Commands and functions that jobs bring, as \`laptop-consumer run\` does; and all tasks of the runtime image.
[task.command]
kind = "command"
[task.python]
kind = "python"
[task."*"]
EOF

  # Until a container can be started a daemon takes no job, and looks: the reason must not stand in its log alone.
  if test -n "$image" && ! "$here/hpc-consumer" run --check --env-file "$dir/.env" >"$dir/check.log" 2>&1; then
    printf 'No job can run here yet; `hpc-consumer doctor` says what to do:\n' >&2
    tail -n 3 "$dir/check.log" >&2
  fi

  # Its log begins anew, and says that it is up.
  "$here/hpc-consumer" run --env-file "$dir/.env" >"$dir/daemon.log" 2>&1 &
  daemon=$!
  wait_for "$daemon" "$dir/daemon.log" 'the daemon' grep -q 'results in' "$dir/daemon.log"
}

if is_up; then
  test -s "$dir/.env" || fail 'another hpc-queue-up has not started its edge yet; run this again in a moment'
  printf 'The edge and the daemon in %s are up already; this shell uses them.\n' "$dir" >&2
else
  start
fi

cd "$dir"
# No program takes it from a file of settings that merely lies in the current directory, as it says what is run.
SITE_FILE=$site
export SITE_FILE
if test $# -gt 0; then
  code=0
  "$@" || code=$?
else
  cat >&2 <<EOF
Data, results and logs are in $dir. Try, in this shell (exit ends it, and with the first one all of this):
  laptop-consumer submit --task simulate --input '{"walkers": 1000}' --wait
  hpc-consumer status
  hpc-consumer doctor
EOF
  code=0
  "${SHELL:-/bin/sh}" || code=$?
fi
exit $code
