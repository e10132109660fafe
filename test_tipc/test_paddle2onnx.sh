#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# bash test_tipc/test_paddle2onnx.sh CONFIG [paddle2onnx_infer]
# Convert an exported model to ONNX, predict with it, and compare the features with Paddle Inference's.
set -euo pipefail
[[ $# -ge 1 && ${2:-paddle2onnx_infer} == paddle2onnx_infer ]] ||
    { echo "usage: bash $0 CONFIG [paddle2onnx_infer]" >&2; exit 2; }
config=$(realpath -- "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source test_tipc/common_func.sh
tipc_read "$config"
[[ ${#lines[@]} -eq 16 ]] || tipc_stop "$config has ${#lines[@]} lines, the format has 16"

python=$(value 2)
tipc_require_python "$python"
model=$(tipc_model "$config")
folder=$(value 4)
output=test_tipc/output/$model/paddle2onnx_infer
results=$output/results_paddle2onnx.log
mkdir -p "$output" deploy
: >"$results"
[[ -f $folder/inference.pdiparams ]] ||
    tipc_stop "there is no exported model in $folder: bash test_tipc/prepare.sh $1 paddle2onnx_infer"
# Paddle 2 writes the program as inference.pdmodel.
[[ -f $folder/$(value 5) ]] || lines[5]="$(key 5):inference.pdmodel"

stage() { # folder, log, command
    local status=0
    tipc_run "$1" "$2" "$3" || status=$?
    [[ $status -eq 0 ]] || tail -n 25 "$2" >&2
    status_check "$status" "$3" "$results" "$model" "$2"
    return "$status"
}

stage . "$output/trans_model.log" \
    "$(value 3) $(argument 4) $(argument 5) $(argument 6) $(argument 7) $(argument 8) $(argument 9)"
[[ $(value 11) != null ]] || exit 0
stage deploy "$output/paddle_infer_cpu.log" \
    "$python $(value 11) -o $(argument 13) -o $(argument 14) --out=../$output/paddle.npz"
stage deploy "$output/paddle2onnx_infer_cpu.log" \
    "$python $(value 11) -o $(argument 13) -o $(argument 12) -o $(argument 14) --out=../$output/onnx.npz"
stage . "$output/compare.log" "$python test_tipc/compare_results.py --atol 1e-4 --rtol 0 \
--gt_file $output/paddle.npz --log_file $output/onnx.npz"
