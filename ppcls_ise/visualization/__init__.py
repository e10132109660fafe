# SPDX-License-Identifier: Apache-2.0
"""Ranked lists and curves as pictures and pages."""
