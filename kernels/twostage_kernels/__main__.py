"""``python -m twostage_kernels``: which backends this machine has, and why the others are missing."""

import platform

import torch

from twostage_kernels import native
from twostage_kernels._version import __version__
from twostage_kernels.backends import BACKEND_NAMES, OPS, available_backends, why_unavailable


def main() -> None:
    print(f"twostage_kernels {__version__}, torch {torch.__version__}, {platform.machine()}")
    print(f"CPU instruction sets of the extension: {', '.join(native.instruction_sets()) or 'none'}")
    print(f"CPU threads of the extension: {native.threads()}")
    print(f"GPU architectures of the extension: {native.architectures() or 'none'}")
    devices = ["cpu"]
    if torch.cuda.is_available():
        devices.append("cuda")
        print(f"GPU: {torch.cuda.get_device_name()}")
    for device in devices:
        for op in OPS:
            print(f"\n{op} on {device}: {', '.join(available_backends(op, device))}")
            for backend in BACKEND_NAMES:
                reason = why_unavailable(op, backend, device)
                if reason is not None:
                    print(f"    no {backend}: {reason}")
    if len(devices) == 1:
        print("\nno GPU: torch sees none")
        for backend in BACKEND_NAMES:
            reason = why_unavailable("ssim", backend, "cuda")
            if reason is not None:
                print(f"    no {backend} on cuda: {reason}")


if __name__ == "__main__":
    main()
