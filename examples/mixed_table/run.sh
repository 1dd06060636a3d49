#!/bin/sh
# The same as run.py, with curl: sh examples/mixed_table/run.sh sun.zip
set -eu
here=$(dirname "$0")
. "$here/../service.sh"

call -T "${1:-sun.zip}" "$URL/v1/datasets/sun?format=table"
wait_for sun

train "$here/job.json"

call -H "Content-Type: application/json" "$URL/v1/models/$MODEL/predict" -d '{
  "instances": [
    {"date": "2025-06-21", "hour": 5.0, "latitude": 52.5, "hemisphere": "north"},
    {"date": "2025-12-21", "hour": 5.0, "latitude": 52.5, "hemisphere": "north"},
    {"date": "2025-12-21", "hour": 12.0, "latitude": null, "hemisphere": "south"}
  ]
}'
