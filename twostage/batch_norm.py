"""Batch normalisation over the processes that train together."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from twostage.distributed import current_ranks


class _SharedBatchNorm(torch.autograd.Function):
    """Normalise by the mean and the variance over the samples of all processes, as many in each.

    Every pass over the pixels is one of torch's fused kernels: those of evaluation, with the statistics of the batch.
    """

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, weight: Tensor, bias: Tensor, eps: float, size: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        # Of bfloat16 values the statistics would be bfloat16.
        exact = values.to(torch.promote_types(values.dtype, torch.float32))
        own = torch.stack(torch.batch_norm_update_stats(exact, None, None, 0.0))
        of_all = [torch.empty_like(own) for _ in range(size)]
        dist.all_gather(of_all, own)
        means, variances = torch.stack(of_all).unbind(dim=1)
        mean = means.mean(dim=0)
        variance = (variances + (means - mean).square()).mean(dim=0)
        ctx.save_for_backward(values, weight, mean, variance)
        ctx.eps, ctx.size = eps, size
        ctx.mark_non_differentiable(mean, variance)
        return F.batch_norm(values, mean, variance, weight, bias, False, 0.0, eps), mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
        values, weight, mean, variance = ctx.saved_tensors
        given, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, values, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        # What flows through the statistics is a line in each value, with the sums over all processes.
        sums_of_all = torch.stack((of_weight, of_bias))
        dist.all_reduce(sums_of_all)
        count = values.numel() // values.shape[1] * ctx.size
        scale = weight * torch.rsqrt(variance + ctx.eps) / count
        slope, level = (sums_of_all * scale).unbind()
        through = F.batch_norm(values, mean, variance, slope, level, False, 0.0, ctx.eps)
        return given - through, of_weight, of_bias, None, None


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation whose statistics are those of the whole batch, however many processes share it.

    Alone, or in evaluation, it is ``nn.BatchNorm2d``. Every process has to bring as many samples. torch's own
    SyncBatchNorm does the same for GPUs alone.
    """

    def forward(self, input: Tensor) -> Tensor:
        size = current_ranks().size
        if size == 1 or not self.training:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        normal: tuple[Tensor, Tensor, Tensor] = _SharedBatchNorm.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.bias, self.eps, size
        )
        output, mean, variance = normal
        with torch.no_grad():
            count = input.numel() // input.shape[1] * size
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
            self.num_batches_tracked += 1
        return output
