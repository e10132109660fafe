#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# bash test_tipc/prepare.sh CONFIG MODE
# Put under dataset/tipc what the config reads: generated images, and in the "whole" modes real ones where they are.
set -euo pipefail
[[ $# -eq 2 ]] || { echo "usage: bash $0 CONFIG MODE" >&2; exit 2; }
config=$(realpath -- "$1")
mode=$2
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source test_tipc/common_func.sh
[[ $mode == paddle2onnx_infer ]] || tipc_require_mode "$mode"
tipc_read "$config"
python=$(func_parser_value "${lines[2]}")
tipc_require_python "$python"

if [[ $mode == paddle2onnx_infer ]]; then
    # What there is to convert comes from the training config of the same model.
    training=${config%/*}/$(tipc_model "$config")_train_infer_python.txt
    bash "test_tipc/prepare.sh" "$training" whole_infer
    [[ -f $(func_parser_value "${lines[4]}")/inference.pdiparams ]] ||
        bash test_tipc/test_train_inference_python.sh "$training" whole_infer
    exit
fi

# Where real data sets are looked for: folders of Market-1501 or MSMT17, as tools/train.py finds them.
real_root=$(realpath -m -- "${TIPC_DATA:-dataset}")
lite=$PWD/dataset/tipc/lite

find_real() {
    local names name
    case "$1" in
    market1501) names="market1501/Market-1501-v15.09.15 Market-1501-v15.09.15 Market-1501 market1501 Market1501" ;;
    msmt17) names="msmt17/MSMT17_V1 msmt17/MSMT17_V2 MSMT17_V1 MSMT17_V2 msmt17 MSMT17" ;;
    *) names="$1" ;;
    esac
    for name in $names; do
        if [[ -d $real_root/$name/bounding_box_train || -f $real_root/$name/list_train.txt ]]; then
            printf '%s\n' "$real_root/$name"
            return
        fi
    done
}

# Folder of the gallery images of a data set.
gallery_of() {
    local name
    for name in bounding_box_test test mask_test_v2; do
        [[ ! -d $1/$name ]] || { printf '%s\n' "$1/$name"; return; }
    done
}

link() { # target, name
    [[ -L $2 || ! -e $2 ]] || tipc_stop "$2 is no link; move it away"
    ln -sfn "$1" "$2"
    echo "$2 -> $1"
}

# dataset/tipc/<name> and dataset/tipc/<name>_infer, the paths in the config.
train_link=$(grep -oP 'Global\.image_root=\K\S+' <<<"$(func_parser_value "${lines[15]:-}")" || true)
infer_link=$(func_parser_value "${lines[47]:-}")
infer_link=${infer_link#../}
[[ $train_link == *dataset/tipc/* && $infer_link == dataset/tipc/* ]] ||
    tipc_stop "$config: norm_train needs Global.image_root=./dataset/tipc/NAME, and the images to predict lie there too"
name=$(basename "$train_link")
mkdir -p dataset/tipc deploy # PaddleClas's runner predicts from a folder deploy/, whatever is in it
"$python" tools/make_synthetic.py --out "$lite" --num-train-ids 8 --num-test-ids 6 --images-per-id 8 --height 64 --width 32

train_on=$lite
predict_on=$lite/query
real=$(find_real "$name")
if [[ $mode == whole_* || $mode == lite_train_whole_infer ]]; then
    if [[ -n $real ]]; then
        predict_on=$(gallery_of "$real")
        [[ $mode == lite_train_whole_infer ]] || train_on=$real
    else
        echo "there is no $name under $real_root (TIPC_DATA names another folder): the generated images stand in"
        predict_on=$lite/bounding_box_test
    fi
fi
link "$train_on" "dataset/tipc/$name"
link "$predict_on" "$infer_link"

# Weights for inference alone: those of the short training chain, unless better ones have been put there.
weights=$(func_parser_value "${lines[36]}")
if [[ $mode == whole_infer && ! -s $weights.pdparams ]]; then
    echo "there is no $weights.pdparams: taking the weights of lite_train_lite_infer"
    chain=test_tipc/output/$(tipc_model "$config")/lite_train_lite_infer
    find_trained() { find "$chain" -path "*/norm_train_*/$(func_parser_value "${lines[10]}").pdparams" 2>/dev/null | head -n 1; }
    [[ -n $(find_trained) ]] || bash test_tipc/test_train_inference_python.sh "$config" lite_train_lite_infer
    mkdir -p "$(dirname "$weights")"
    cp "$(find_trained)" "$weights.pdparams"
fi
