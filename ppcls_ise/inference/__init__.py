# SPDX-License-Identifier: Apache-2.0
"""Static graphs, and what an exported model folder holds."""
