#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# bash test_tipc/benchmark_train.sh CONFIG benchmark_train [dynamic_bs8_fp32_DP_N1C1]
# One epoch per setting of the config's train_benchmark_params (or of the third argument: dynamic or
# dynamicTostatic, batch size of a card, precision, DP, machines and cards), and its images per second.
set -euo pipefail
[[ $# -ge 2 && $2 == benchmark_train ]] || { echo "usage: bash $0 CONFIG benchmark_train [SETTING]" >&2; exit 2; }
config=$(realpath -- "$1")
setting=${3:-}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source test_tipc/common_func.sh
tipc_read "$config"
model=$(tipc_model "$config")
first=-1
for i in "${!lines[@]}"; do
    [[ ${lines[i]} != *=train_benchmark_params=* ]] || first=$((i + 1))
done
[[ $first -gt 0 ]] || tipc_stop "$config has no section train_benchmark_params"
field() { func_parser_value "${lines[first + $1]}"; }

IFS="|" read -r -a batch_sizes <<<"$(field 0)"
IFS="|" read -r -a precisions <<<"$(field 1)"
IFS="|" read -r -a trainers <<<"$(field 3)"
IFS=";" read -r -a flags <<<"$(field 6)"
cards=1
if [[ -n $setting ]]; then
    [[ $setting =~ ^(dynamic|dynamicTostatic)_bs([0-9]+)_(fp32|null|amp|fp16)_DP_N1C([0-9]+)$ ]] ||
        tipc_stop "'$setting' is not of the form dynamic_bs8_fp32_DP_N1C1"
    trainers=(norm_train)
    [[ ${BASH_REMATCH[1]} == dynamic ]] || trainers=(to_static_train)
    batch_sizes=("${BASH_REMATCH[2]}") precisions=("${BASH_REMATCH[3]}") cards=${BASH_REMATCH[4]}
fi
for flag in "${flags[@]}"; do
    [[ $flag == null ]] || export "${flag?}"
done

output=test_tipc/output/$model/benchmark_train
mkdir -p "$output"
status=0
for batch in "${batch_sizes[@]}"; do
    for precision in "${precisions[@]}"; do
        for trainer in "${trainers[@]}"; do
            name=${model}_bs${batch}_${precision}_DP_N1C${cards}_${trainer}
            copy=("${lines[@]}")
            [[ $(func_parser_value "${copy[3]}") == -1 && $cards -eq 1 ]] || copy[3]="gpu_list:$(seq -s, 0 $((cards - 1)))"
            copy[5]="$(func_parser_key "${copy[5]}"):${precision/fp32/null}"
            copy[8]="$(func_parser_key "${copy[8]}"):$batch"
            copy[14]="trainer:$trainer"
            copy[15]=${copy[15]/loader.num_workers=0/loader.num_workers=$(field 4)}
            copy[23]="eval:null"
            copy[29]="norm_export:null"
            printf '%s\n' "${copy[@]}" >"$output/$name.txt"
            if ! TIPC_MODEL=$model bash test_tipc/test_train_inference_python.sh "$output/$name.txt" benchmark_train; then
                status=1
                continue
            fi
            log=$(find "$output" -path "*/${trainer}_*/train.log" | head -n 1)
            # PaddleClas logs the mean rate of one card since the epoch began.
            rate=$(grep -oP 'ips: \K[0-9.]+' "$log" | tail -n 1 || true)
            [[ -n $rate ]] || { echo "$log tells no ips" >&2; status=1; continue; }
            loss=$(grep -oP '\bloss: \K[0-9.]+' "$log" | tail -n 1)
            awk -v name="$name" -v cards="$cards" -v rate="$rate" -v loss="$loss" 'BEGIN {
                printf "{\"model\": \"%s\", \"cards\": %d, \"ips\": %.3f, \"unit\": \"samples/s\", \"loss\": %s}\n",
                    name, cards, rate * cards, loss }' | tee "$output/${name}_speed.json"
        done
    done
done
exit "$status"
