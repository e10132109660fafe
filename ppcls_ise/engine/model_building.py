# SPDX-License-Identifier: Apache-2.0
"""A model by PaddleClas, whose backbone ends where the configuration says."""

from collections.abc import Callable
from typing import Any

from paddle import nn

from ppcls_ise.compat import Config
from ppcls_ise.errors import ConfigError


def build_model(build: Callable[..., None], config: Config, mode: str) -> None:
    """PaddleClas's own ``__init__``, which stops every backbone as if all could be stopped.

    Raises:
        ConfigError: this one cannot; names the section.
    """
    try:
        build(config, mode=mode)
    except AttributeError as error:
        if "stop_after" not in str(error):
            raise
        raise ConfigError(
            f"Arch.BackboneStopLayer: {config['Arch']['Backbone']['name']} cannot be stopped after "
            "a layer. Remove that section (-o Arch.BackboneStopLayer=null) if the network can give "
            "features by its own options, or take a backbone of docs/en/backbones.md"
        ) from error


def require_stopped(backbone: nn.Layer, arch: Any) -> None:
    """Refuse a stop layer that is not there, which PaddleClas passes over.

    Raises:
        ConfigError: names the layers that are.
    """
    layer = (arch.get("BackboneStopLayer") or {}).get("name")
    if layer is not None and not backbone.stop_after(layer):
        names = ", ".join(name for name, _ in backbone.named_children())
        raise ConfigError(
            f"Arch.BackboneStopLayer.name: {arch['Backbone']['name']} has no layer {layer!r}, only "
            f"{names} and what is in them (blocks[3]); see docs/en/backbones.md"
        )
