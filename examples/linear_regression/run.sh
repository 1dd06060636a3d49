#!/bin/sh
# The same as run.py, with curl: sh examples/linear_regression/run.sh diabetes.zip
set -eu
here=$(dirname "$0")
. "$here/../service.sh"

call -T "${1:-diabetes.zip}" "$URL/v1/datasets/patients?format=table"
wait_for patients

train "$here/job.json"

call -H "Content-Type: application/json" "$URL/v1/models/$MODEL/predict" \
  -d '{"instances": [{"sex": 2.0, "bmi": 32.1, "bp": 101.0, "s5": 4.8598}]}'
