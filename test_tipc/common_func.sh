#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What the TIPC scripts share. The func_* functions and status_check bear the names and take the arguments that
# PaddleClas's scripts use, so that those run on this file as well. Sourcing it changes no shell option.

TIPC_MODES="lite_train_lite_infer lite_train_whole_infer whole_train_whole_infer whole_infer train_amp_infer benchmark_train"

tipc_stop() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

tipc_trim() {
    local text=$1
    text="${text#"${text%%[![:space:]]*}"}"
    printf '%s\n' "${text%"${text##*[![:space:]]}"}"
}

# A line is "key:value"; a second colon ends the value.
func_parser_key() {
    tipc_trim "${1%%:*}"
}

func_parser_value() {
    func_parser_value_lite "$1" ":"
}

# The same with another separator.
func_parser_value_lite() {
    local rest=""
    [[ $1 == *"$2"* ]] && rest="${1#*"$2"}"
    tipc_trim "${rest%%"$2"*}"
}

# "key:mode=value|mode=value" and a mode: the value of that mode, nothing where there is none.
func_parser_params() {
    local value entry entries
    value=$(func_parser_value "$1")
    IFS="|" read -r -a entries <<<"$value"
    for entry in "${entries[@]}"; do
        if [[ ${entry%%=*} == "${2:-}" ]]; then
            printf '%s\n' "${entry#*=}"
            return
        fi
    done
    echo
}

# "key" and "value" as an argument "key=value"; nothing where either says null.
func_set_params() {
    if [[ $1 == null || -z $2 || $2 == null || $2 == " " ]]; then
        echo " "
    else
        printf '%s=%s\n' "$1" "$2"
    fi
}

# The arguments of one entry of the autocast list: null, amp (O1) or fp16 (O2). The key is not used.
func_set_amp_params() {
    local level
    case "$2" in
    amp) level=O1 ;;
    fp16) level=O2 ;;
    *)
        echo "-o AMP.use_amp=False"
        return
        ;;
    esac
    echo "-o AMP.use_amp=True -o AMP.scale_loss=128 -o AMP.use_dynamic_loss_scaling=True -o AMP.level=$level"
}

# exit status, command, file of results, name of the model, log of the stage
status_check() {
    local word=successfully
    [[ $1 -eq 0 ]] || word=failed
    printf '\033[33m Run %s with command - %s - %s - %s ! \033[0m\n' "$word" "$4" "$2" "${5:-}" | tee -a "$3"
}

# The lines of a config into the array `lines`, counted from 0 without the empty ones.
tipc_read() {
    [[ -f $1 ]] || tipc_stop "there is no config file $1"
    # shellcheck disable=SC2034
    mapfile -t lines < <(tr -d '\r' <"$1" | grep -v '^$')
}

# Key, value and argument "key=value" of line $1; the argument of another value with $2.
key() { func_parser_key "${lines[$1]}"; }
value() { func_parser_value "${lines[$1]}"; }
argument() { func_set_params "$(key "$1")" "${2-$(value "$1")}"; }

# Name of the model, for folders and result lines: the folder of its config. (The line model_name is
# Arch.name, as PaddleClas's runner wants it, and the same for all of them.)
tipc_model() {
    basename "$(dirname "$(realpath -- "$1")")"
}

tipc_require_mode() {
    [[ " $TIPC_MODES " == *" $1 "* ]] || tipc_stop "there is no mode '$1'; modes: $TIPC_MODES"
}

tipc_require_python() {
    command -v "$1" >/dev/null ||
        tipc_stop "there is no '$1' (third line of the config); put an environment first, e.g. PATH=\$PWD/.venv/bin:\$PATH"
}

# How many GPUs the installed Paddle can use.
tipc_count_gpus() {
    "$1" -c 'import zlib, paddle; print(paddle.device.cuda.device_count())' 2>/dev/null | tail -n 1
}

# Run a command (quotes in it group words, nothing else is special) in a folder, with its output in a log.
tipc_run() {
    local folder=$1 log=$2 words
    mapfile -t words < <(xargs printf '%s\n' <<<"$3")
    mkdir -p "$(dirname "$log")"
    (cd "$folder" && "${words[@]}") >"$log" 2>&1
}
