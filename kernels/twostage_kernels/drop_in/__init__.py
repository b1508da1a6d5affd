"""Other packages' SSIM functions, name for name and argument for argument, computed by the ops of this package."""
