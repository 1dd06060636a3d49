# What the curl scripts share, read by `.` from POSIX sh. With curl and python3 (which reads JSON), nothing else.
#
# MODELYARD_URL  where the service is; else http://127.0.0.1:8000
# MODELYARD_KEY  else the file admin.key in MODELYARD_HOME, else in ~/.modelyard
# EPOCHS         instead of those in job.json

URL=${MODELYARD_URL:-http://127.0.0.1:8000}
KEY=${MODELYARD_KEY:-$(cat "${MODELYARD_HOME:-$HOME/.modelyard}/admin.key")}

# call ARGUMENTS…: curl with the key. A refusal is printed and ends the script.
call() {
  if ! curl --fail-with-body -sS -H "Authorization: Bearer $KEY" "$@" >"$tmp/reply"; then
    cat "$tmp/reply" >&2
    exit 1
  fi
  cat "$tmp/reply"
  echo
}

# field NAME…: of the JSON that comes in, going inwards.
field() {
  python3 -c '
import json, sys
value = json.load(sys.stdin)
for name in sys.argv[1:]:
    value = value[int(name)] if isinstance(value, list) else value[name]
print(value)' "$@"
}

# quoted TEXT: as a URL's query takes it.
quoted() {
  python3 -c 'import sys, urllib.parse; print(urllib.parse.quote(sys.argv[1]))' "$1"
}

# wait_for NAME: until the newest version of a dataset can be trained on.
wait_for() {
  state=processing
  while [ "$state" = processing ]; do
    call "$URL/v1/datasets/$1?wait=30" >"$tmp/dataset"
    state=$(field state <"$tmp/dataset")
  done
  if [ "$state" != ready ]; then
    cat "$tmp/dataset" >&2
    exit 1
  fi
}

# train FILE: submits the job, shows what happens until it ends; MODEL is then name@version.
train() {
  if [ -n "${EPOCHS:-}" ]; then
    python3 -c '
import json, sys
spec = json.load(open(sys.argv[1]))
spec["trainer"]["epochs"] = int(sys.argv[2])
print(json.dumps(spec))' "$1" "$EPOCHS" >"$tmp/spec.json"
  else
    cat "$1" >"$tmp/spec.json"
  fi
  call -H "Content-Type: application/json" -d @"$tmp/spec.json" "$URL/v1/jobs" >"$tmp/job"
  job=$(field id <"$tmp/job")
  curl -sSN -H "Authorization: Bearer $KEY" -H "Accept: text/event-stream" "$URL/v1/jobs/$job/events"
  call "$URL/v1/jobs/$job" >"$tmp/job"
  if [ "$(field state <"$tmp/job")" != succeeded ]; then
    cat "$tmp/job" >&2
    exit 1
  fi
  MODEL=$(field registered model <"$tmp/job")@$(field registered version <"$tmp/job")
  field metrics <"$tmp/job"
}

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
