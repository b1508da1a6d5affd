"""Benchmarks: ``python -m benchmarks --help``, or ``make bench``.

``case`` says what a case declares, ``cases`` holds them, ``peers`` what they are compared with; ``runner`` checks and
times them and appends rows, ``report`` draws what the rows say.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

# A benchmark allows no error that the tests do not allow: both read tests/tolerances.py.
sys.path.append(str(ROOT / "tests"))
