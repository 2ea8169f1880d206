"""``python -m pyemperor``: the same as the ``pyemperor`` command."""

import sys

from pyemperor.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
