"""What the GPU kernels compile to: registers, memory, instructions a pixel, and the time that these imply.

``compiling`` makes machine code, ``listing`` reads it, ``budget`` says what it costs. No GPU is needed.
"""

import sys
from pathlib import Path

from benchmarks.gpu_kernels import KERNELS
from benchmarks.sass.compiling import CompileError
from benchmarks.sass.table import ARCHITECTURES, examine, render


def write_table(output: Path) -> int:
    """Compile and tabulate every declared kernel, print the table and write it to ``output``.

    Returns:
        1 where a kernel could not be compiled or found; the others are in the table all the same.
    """
    facts, problems = [], []
    for kernel in KERNELS:
        for architecture in ARCHITECTURES:
            try:
                facts.append(examine(kernel, architecture))
            except CompileError as error:
                problems.append(f"{kernel.name}, sm_{architecture}: {error}")
    text = render(facts)
    print(text)
    for problem in problems:
        print(problem, file=sys.stderr)
    if facts:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text + "\n", encoding="utf-8")
    elif not problems:
        print("benchmarks/gpu_kernels.py declares no kernel", file=sys.stderr)
    return 1 if problems or not facts else 0
