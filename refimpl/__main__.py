"""Run the command line: `python -m refimpl` and the script `refimpl`."""

import sys

from refimpl.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
