#!/bin/sh
# The same as run.py, with curl: sh examples/two_inputs/run.sh things.zip
set -eu
here=$(dirname "$0")
. "$here/../service.sh"

options=$(quoted '{"text": "summary"}')
call -T "${1:-things.zip}" "$URL/v1/datasets/things?format=text&options=$options"
wait_for things

train "$here/job.json"

call -H "Content-Type: application/json" "$URL/v1/models/$MODEL/predict" -d '{
  "instances": [
    {"summary": "Return the larger of two numbers.", "parameters": 2, "defaults": 0, "lines": 1},
    {"summary": "Linear model with regularization.", "parameters": 8, "defaults": 8, "lines": 120}
  ]
}'
