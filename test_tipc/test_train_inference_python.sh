#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# bash test_tipc/test_train_inference_python.sh CONFIG MODE
# Train, evaluate, export and predict as the config says; exit status 1 when a stage failed, 2 when the call is wrong.
set -euo pipefail
[[ $# -eq 2 ]] || { echo "usage: bash $0 CONFIG MODE" >&2; exit 2; }
config=$(realpath -- "$1")
mode=$2
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source test_tipc/common_func.sh
tipc_require_mode "$mode"
tipc_read "$config"
[[ ${#lines[@]} -gt 50 ]] || tipc_stop "$config has ${#lines[@]} lines, the format has 51 or more"

arch=$(value 1)
python=$(value 2)
tipc_require_python "$python"
model=${TIPC_MODEL:-$(tipc_model "$config")}
output=test_tipc/output/$model/$mode
results=$output/results_python.log
mkdir -p "$output" deploy
: >"$results"

IFS="|" read -r -a gpu_list <<<"$(value 3)"
IFS="|" read -r -a autocast_list <<<"$(value 5)"
IFS="|" read -r -a trainers <<<"$(value 14)"
IFS="|" read -r -a use_gpu_list <<<"$(value 40)"
[[ $mode != train_amp_infer ]] || autocast_list=(amp)
epochs=$(func_parser_params "${lines[6]}" "$mode")
[[ $mode != benchmark_train ]] || epochs=1

device=$(value 4)
if [[ $device == gpu || $(value 40) == *True* ]] && [[ $(tipc_count_gpus "$python") -eq 0 ]]; then
    echo "Paddle finds no GPU: everything runs on the CPU"
    device=cpu
    use_gpu_list=(False)
fi

passed=0
failed=0
stage() { # name, folder, log, command
    local status=0 start=$SECONDS
    tipc_run "$2" "$3" "$4" || status=$?
    [[ $status -ne 0 || -z ${5:-} || -s $5 ]] || status=1
    echo "[$model] $1: $((SECONDS - start)) s"
    if [[ $status -eq 0 ]]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        tail -n 25 "$3" >&2
        [[ -z ${5:-} || -s $5 ]] || echo "there is no $5" >&2
    fi
    status_check "$status" "$4" "$results" "$model" "$3"
    return "$status"
}

# How a training starts: one process, or one per card (with gloo where there is no GPU).
launcher() { # gpu, folder of logs
    local commas=${1//[!,]/}
    if [[ -z $commas ]]; then
        if [[ $1 == -1 || $device != gpu ]]; then echo "$python"; else echo "env CUDA_VISIBLE_DEVICES=$1 $python"; fi
    elif [[ $device == gpu ]]; then
        echo "$python -m paddle.distributed.launch --devices=$1 --log_dir=$2"
    else
        echo "$python -m paddle.distributed.launch --nproc_per_node=$((${#commas} + 1)) --backend=gloo --log_dir=$2"
    fi
}

predict() { # model folder, name of the chain
    local use_gpu prefix common
    [[ $(value 39) != null ]] || return 0
    for use_gpu in "${use_gpu_list[@]}"; do
        prefix="$output/python_infer"
        common="$python $(value 39) $(argument 40 "$use_gpu") $(argument 46 "../$1") $(argument 47) $(argument 49)"
        if [[ $use_gpu == False || $use_gpu == cpu ]]; then predict_on_cpu "$2"; else predict_on_gpu "$2"; fi
    done
}

predict_on_cpu() {
    local onednn threads batch name
    for onednn in $(list 41); do
        for threads in $(list 42); do
            for batch in $(list 43); do
                name="${prefix}_cpu_$1_usemkldnn_${onednn}_threads_${threads}_batchsize_$batch.log"
                stage "predict on the CPU" deploy "$name" \
                    "$common $(argument 41 "$onednn") $(argument 42 "$threads") $(argument 43 "$batch") $(argument 50)" || true
            done
        done
    done
}

predict_on_gpu() {
    local trt precision batch name
    for trt in $(list 44); do
        for precision in $(list 45); do
            [[ $precision != True || $trt != False ]] || continue
            for batch in $(list 43); do
                name="${prefix}_gpu_$1_usetrt_${trt}_precision_${precision}_batchsize_$batch.log"
                stage "predict on the GPU" deploy "$name" \
                    "$common $(argument 44 "$trt") $(argument 45 "$precision") $(argument 43 "$batch") $(argument 50)" || true
            done
        done
    done
}

list() {
    local text
    text=$(value "$1")
    printf '%s\n' "${text//|/ }"
}

# Sets train_line and export_line; null where the config has none.
choose_trainer() {
    train_line=$(value 15)
    export_line=$(value 29)
    local row
    for row in 16:30 17:31 18:32 20:34; do
        if [[ $1 == "$(key "${row%:*}")" ]]; then
            train_line=$(value "${row%:*}")
            export_line=$(value "${row#*:}")
        fi
    done
    if [[ $1 == "$(key 19)" && $train_line != null ]]; then
        train_line="$train_line $(value 19)"
    fi
}

chain() { # gpu, autocast, trainer
    local name="$3_gpus_$1_autocast_$2_nodes_1" folder weights run_on=$device train_line export_line
    choose_trainer "$3"
    [[ $train_line != null ]] || return 0
    [[ $1 != -1 ]] || run_on=cpu
    folder=$output/$name
    weights=$folder/$arch/$(value 10)
    rm -rf "$folder"
    stage "train ($name)" . "$folder.log" \
        "$(launcher "$1" "$folder/launch") $train_line $(argument 4 "$run_on") $(argument 7 "$folder") \
$(argument 6 "${epochs:-2}") $(argument 9) $(func_set_amp_params "$(key 5)" "$2") $(argument 8) $(argument 12) \
-o Global.print_mem_info=True" "$weights.pdparams" || return 0
    if [[ $(value 23) != null ]]; then
        stage "evaluate" . "${folder}_eval.log" \
            "$python $(value 23) $(argument 9 "$weights") $(argument 4 "$run_on") $(argument 24)" || true
    fi
    [[ $export_line != null ]] || return 0
    stage "export" . "${folder}_export.log" \
        "$python $export_line $(argument 28 "$weights") $(argument 27 "$folder")" || return 0
    predict "$folder" "$name"
}

if [[ $mode == whole_infer ]]; then
    IFS="|" read -r -a models <<<"$(value 36)"
    for weights in "${models[@]}"; do
        folder=$weights
        if [[ $(value 37) == True ]]; then
            folder=$(dirname "$weights")
            stage "export" . "$output/export.log" \
                "$python $(value 29) $(argument 28 "$weights") $(argument 27 "$folder")" || continue
        fi
        predict "$folder" "$mode"
    done
else
    for gpu in "${gpu_list[@]}"; do
        for autocast in "${autocast_list[@]}"; do
            for trainer in "${trainers[@]}"; do
                chain "$gpu" "$autocast" "$trainer"
            done
        done
    done
fi
echo "[$model] $mode: $passed stages successful, $failed failed; $results"
[[ $failed -eq 0 && $passed -gt 0 ]]
