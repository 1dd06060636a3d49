#!/bin/sh
# The same as run.py, with curl: sh examples/lstm_text/run.sh sentences.zip
set -eu
here=$(dirname "$0")
. "$here/../service.sh"

call -T "${1:-sentences.zip}" "$URL/v1/datasets/sentences?format=text"
wait_for sentences

train "$here/job.json"

call -H "Content-Type: application/json" "$URL/v1/models/$MODEL/predict" -d '{
  "instances": [{"text": "Fit the estimator and predict a label for each sample of the test set."}],
  "top_k": 3
}'
