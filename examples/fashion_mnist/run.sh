#!/bin/sh
# The same as run.py, with curl: sh examples/fashion_mnist/run.sh fashion-mnist.zip
set -eu
here=$(dirname "$0")
. "$here/../service.sh"

options=$(quoted '{"classes": ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]}')
call -T "${1:-fashion-mnist.zip}" "$URL/v1/datasets/fashion-mnist?format=idx&options=$options"
wait_for fashion-mnist

train "$here/job.json"

call "$URL/v1/datasets/fashion-mnist/samples?split=test&limit=1" >"$tmp/samples"
printf '{"instances": [%s]}' "$(field items 0 values x <"$tmp/samples")" >"$tmp/instances"
call -H "Content-Type: application/json" -d @"$tmp/instances" "$URL/v1/models/$MODEL/predict"
