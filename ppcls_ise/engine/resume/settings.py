# SPDX-License-Identifier: Apache-2.0
"""The settings that a run was started with, beside those that it is resumed with."""

from collections.abc import Iterator, Mapping
from typing import Any

import paddle.distributed as dist

from ppcls_ise import compat
from ppcls_ise.errors import ConfigError

_BATCH = "DataLoader.Train.sampler.batch_size"
# With another one of these it is another run,
_DECISIVE = (
    "Global.seed Arch Loss Optimizer Clustering DataLoader.Train.sampler DataLoader.Train.dataset"
).split()
# but not with these, which are one's own to choose on the way, or change the speed alone.
_FREE = (
    "Arch.Backbone.pretrained Optimizer.lr Clustering.batch_size Clustering.backend "
    "DataLoader.Train.dataset.image_root"
).split()
# Where things are, and what is asked of this start.
_OF_A_START = (
    "Global.checkpoints Global.output_dir Global.image_root Global.allow_changes "
    "Global.pretrained_model profiler_options DataLoader.Train.dataset.image_root"
).split()


def settings_of(config: Any) -> dict[str, Any]:
    """Every setting by its path, as ``-o`` spells it.

    Args:
        config: with its defaults (`ppcls_ise.config.complete`), so that a default and the same
            value written out are one.

    The batch size is that of all processes.
    """
    settings = dict(_leaves(config, ""))
    if _BATCH in settings:
        settings[_BATCH] *= dist.get_world_size()
    return settings


def check_settings(before: Mapping[str, Any], config: Any, now: Mapping[str, Any]) -> None:
    """Say which settings differ from those ``before``; both from `settings_of`.

    Raises:
        ConfigError: they make it another run, and ``Global.allow_changes`` is not on.
    """
    differences = {
        key: f"{key} was {before.get(key, 'not set')!s}, is {now.get(key, 'not set')!s}"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key) and not _under(key, _OF_A_START)
    }
    decisive = [
        text
        for key, text in differences.items()
        if _under(key, _DECISIVE) and not _under(key, _FREE)
    ]
    if decisive and not config["Global"].get("allow_changes"):
        raise ConfigError(
            f"Global.checkpoints: this would not go on with the run that was saved: "
            f"{'; '.join(decisive)}. Put the settings back, or take the change knowingly with "
            "-o Global.allow_changes=True, or start anew from its weights with "
            "Global.pretrained_model"
        )
    if differences:
        compat.logger().warning(f"resumed with other settings: {'; '.join(differences.values())}")


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        for i, item in enumerate(value):
            yield from _leaves(item, f"{path}.{i}")
    else:
        yield path, list(value) if isinstance(value, tuple) else value


def _under(key: str, places: list[str]) -> bool:
    return any(key == place or key.startswith(f"{place}.") for place in places)
