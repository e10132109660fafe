# SPDX-License-Identifier: Apache-2.0
"""What `ppcls-ise check` runs: does this machine train, and as it should?"""
