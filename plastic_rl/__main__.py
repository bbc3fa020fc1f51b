"""`python -m plastic_rl`: the command line, as `plastic-rl`."""

from __future__ import annotations

import sys

from plastic_rl.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
