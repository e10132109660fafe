# SPDX-License-Identifier: Apache-2.0
"""What a training run leaves behind beside its weights: tables, configuration, last clustering."""
