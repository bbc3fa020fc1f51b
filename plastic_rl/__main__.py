"""`python -m plastic_rl`: the command line, as `plastic-rl`."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line; Ctrl-C is answered while it is still being imported, too."""
    try:
        from plastic_rl.cli.app import main as run
    except KeyboardInterrupt:
        sys.stderr.write("stopped.\n")
        return 130
    return run()


if __name__ == "__main__":
    sys.exit(main())
