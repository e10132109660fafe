# SPDX-License-Identifier: Apache-2.0
"""``python -m ppcls_ise COMMAND …``: see `ppcls_ise.cli.main`."""

from ppcls_ise.cli.main import main

main()
