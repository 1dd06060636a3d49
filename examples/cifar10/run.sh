#!/bin/sh
# The same as run.py, with curl: sh examples/cifar10/run.sh cifar10.zip cat.jpg
set -eu
here=$(dirname "$0")
. "$here/../service.sh"

call -T "${1:-cifar10.zip}" "$URL/v1/datasets/cifar10"
wait_for cifar10

train "$here/job.json"

if [ -n "${2:-}" ]; then
  call -H "Content-Type: image/jpeg" --data-binary @"$2" "$URL/v1/models/$MODEL/predict?top_k=3"
fi
