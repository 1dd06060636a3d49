#!/bin/sh
# The same as run.py, with curl: sh examples/fine_tuning/run.sh pictures.zip resnet18.pt cat.jpg
set -eu
here=$(dirname "$0")
. "$here/../service.sh"

call -T "${1:-pictures.zip}" "$URL/v1/datasets/pictures"
wait_for pictures

cat "$here/job.json" >"$tmp/job.json"
if [ -n "${2:-}" ]; then
  call -H "Content-Type: application/json" \
    -d "{\"filename\": \"resnet18.pt\", \"length\": $(wc -c <"$2")}" "$URL/v1/uploads" >"$tmp/upload"
  upload=$(field id <"$tmp/upload")
  call -X PATCH -H "Content-Type: application/offset+octet-stream" -H "Upload-Offset: 0" \
    --data-binary @"$2" "$URL/v1/uploads/$upload"
  sed "s/\"DEFAULT\"/{\"upload\": \"$upload\"}/" "$here/job.json" >"$tmp/job.json"
fi

train "$tmp/job.json"

if [ -n "${3:-}" ]; then
  call -H "Content-Type: image/jpeg" --data-binary @"$3" "$URL/v1/models/$MODEL/predict"
fi
