# SPDX-License-Identifier: Apache-2.0
"""From a checkpoint to features: export, extraction."""
