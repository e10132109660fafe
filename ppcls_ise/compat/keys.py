# SPDX-License-Identifier: Apache-2.0
"""The keys that PaddleClas reads, section by section, where its code does not tell them."""

SECTIONS = "Global AMP Arch Loss Optimizer DataLoader Metric profiler_options".split()
GLOBAL = (
    "checkpoints pretrained_model output_dir device save_interval eval_during_train eval_interval "
    "start_eval_epoch epochs print_batch_step use_visualdl image_shape save_inference_dir "
    "eval_mode seed to_static log_ranks print_mem_info distributed"
).split()
AMP = "use_amp scale_loss use_dynamic_loss_scaling use_fp16_test level".split()
ARCH = (
    "name infer_output_key infer_add_softmax is_rec use_sync_bn Backbone BackboneStopLayer Neck "
    "Head"
).split()
LOADER = "num_workers use_shared_memory".split()
# Most factories of PaddleClas pass what they do not know on to the network's class.
BACKBONE = (
    "name pretrained use_ssld class_num lr_mult_list return_patterns return_stages stride_list "
    "input_image_channel data_format"
).split()
