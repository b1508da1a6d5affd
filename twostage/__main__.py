"""``python -m twostage``"""

import sys

from twostage.cli import main

if __name__ == "__main__":
    sys.exit(main())
