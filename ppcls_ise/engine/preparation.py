# SPDX-License-Identifier: Apache-2.0
"""A configuration as the engine needs it, and refused where a run could not reach its end."""

from pathlib import Path

from ppcls_ise import compat
from ppcls_ise.compat import Config
from ppcls_ise.engine.resume.run_folder import choose_output
from ppcls_ise.errors import ConfigError
from ppcls_ise.utils.files import require_writable


def prepare(config: Config, mode: str) -> None:
    """Put right what PaddleClas would misread."""
    options = config["Global"]
    # 2.4.2 turns mixed precision on whenever the section exists, whatever use_amp says.
    if not (config.get("AMP") or {}).get("use_amp", True):
        del config["AMP"]
    # PaddleClas seeds with 0 where there is no seed; say so, and use it for our generators too.
    if options.get("seed") is None:
        options["seed"] = 0
    if mode == "train":
        for section, part in (("DataLoader", "Train"), ("Loss", "Train"), ("Optimizer", "lr")):
            if not (config.get(section) or {}).get(part):
                raise ConfigError(f"training needs {section}.{part}")
    if mode == "eval" or (mode == "train" and options["eval_during_train"]):
        parts = (config.get("DataLoader") or {}).get("Eval") or {}
        if not (parts.get("Query") and parts.get("Gallery")):
            raise ConfigError("evaluation needs DataLoader.Eval.Query and DataLoader.Eval.Gallery")
        if not (config.get("Metric") or {}).get("Eval"):
            raise ConfigError("evaluation needs Metric.Eval, see configs/")
    if config["Arch"].get("use_sync_bn"):
        raise ConfigError(
            "Arch.use_sync_bn has to be False: PaddleClas would replace every batch norm, and with "
            "them Arch.bn_group_size and the neck's frozen bias. On several cards, a "
            "bn_group_size that divides the rows of one card gives the same statistics"
        )
    options["output_dir"] = choose_output(options, train=mode == "train")
    require_writable(options["output_dir"], "Global.output_dir")
    folder = Path(options["output_dir"], config["Arch"]["name"])
    if compat.output_folder_lacks_arch_name():
        options["output_dir"] = str(folder)
