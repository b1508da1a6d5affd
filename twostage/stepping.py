"""One optimiser step on tensors that are at hand: forward, losses, backward, Adam. Nothing is read from the device."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Adam
from torch.profiler import record_function

from twostage.config import ComputeConfig
from twostage.losses import ReconstructionLoss

# cuDNN and the allocator settle during the first steps of a shape; what they do then must not be recorded.
_STEPS_BEFORE_RECORDING = 3

_Result = TypeVar("_Result")


class Computed(NamedTuple):
    """What a step leaves on the device."""

    prediction: Tensor  # [B, C, P, P]
    values: Tensor  # [1 + terms]: the loss, and the terms it was weighed from
    terms: tuple[str, ...]


def make_adam(parameters: nn.Module, learning_rate: float, compute: ComputeConfig) -> Adam:
    """Adam in one kernel for all weights; its counters are tensors beside them."""
    return Adam(parameters.parameters(), lr=learning_rate, fused=True, capturable=compute.cuda_graph)


class Steps:
    """The steps of one stage.

    From the first loss on that is NaN or infinite the weights stay as they are: whoever reads the losses later finds
    the model as that step found it, its running statistics apart.

    Args:
        network: what is called; its parameters are those of ``optimizer``.
        loss: of the stage.
        optimizer: as :func:`make_adam` makes it.
        bf16: whether convolutions are in bfloat16.
    """

    def __init__(self, network: nn.Module, loss: ReconstructionLoss, optimizer: Adam, *, bf16: bool) -> None:
        self.network = network
        self.loss = loss
        self.optimizer = optimizer
        self.bf16 = bf16
        device = next(network.parameters()).device
        self._broken = torch.zeros((), device=device)
        # Adam's kernel reads this flag, as a GradScaler would have it, and leaves the weights alone where it is 1.
        optimizer.found_inf = self._broken  # type: ignore[attr-defined]

    def __call__(self, inputs: Tensor, target: Tensor, sigma: Tensor) -> Computed:
        """Train on reconstructions of ``inputs`` [B, C, P, P] against ``target``, at ``sigma`` pixels (0-d)."""
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.bf16):
            with record_function("forward"):
                prediction = self.network(inputs)
            with record_function("losses"):
                loss = self.loss(prediction, target, sigma)
                values = torch.stack((loss.total.detach(), *loss.terms.values()))
                torch.maximum(self._broken, (~values[0].isfinite()).to(self._broken), out=self._broken)
        with record_function("backward"):
            self.optimizer.zero_grad()
            torch.autograd.backward(loss.total)
        with record_function("optimiser"):
            self.optimizer.step()
        return Computed(prediction.detach(), values, tuple(loss.terms))


class CudaGraph:
    """Kernels that were recorded once and are launched together."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._graph = torch.cuda.CUDAGraph()

    def aside(self, work: Callable[[], _Result]) -> _Result:
        """Do ``work`` where recording is to happen, as has to be done before it."""
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            result = work()
        current.wait_stream(self._stream)
        return result

    def record(self, work: Callable[[], _Result]) -> _Result:
        """Record ``work`` without doing it; its result lies where every replay will write it."""
        with torch.cuda.graph(self._graph, stream=self._stream):
            return work()

    def replay(self) -> None:
        """Do what was recorded."""
        self._graph.replay()


class GraphedSteps(Steps):
    """The same steps, after a few of them launched as one graph. All batches have one shape.

    Args:
        graph: to record into.
    """

    def __init__(
        self, network: nn.Module, loss: ReconstructionLoss, optimizer: Adam, *, bf16: bool, graph: CudaGraph
    ) -> None:
        super().__init__(network, loss, optimizer, bf16=bf16)
        self._graph = graph
        self._done = 0
        self._given: tuple[Tensor, Tensor, Tensor] | None = None
        self._computed: Computed | None = None

    def __call__(self, inputs: Tensor, target: Tensor, sigma: Tensor) -> Computed:
        """As :class:`Steps`; the prediction is overwritten by the next step."""
        step = super().__call__
        if self._done < _STEPS_BEFORE_RECORDING:
            self._done += 1
            return self._graph.aside(lambda: step(inputs, target, sigma))
        if self._given is None:
            given = self._given = inputs.clone(), target.clone(), sigma.clone()
            # Gradients have to be made by the recorded backward pass, so that a replay writes and does not add.
            self.optimizer.zero_grad()
            self._computed = self._graph.record(lambda: step(*given))
        for place, value in zip(self._given, (inputs, target, sigma), strict=True):
            place.copy_(value)
        self._graph.replay()
        assert self._computed is not None
        return self._computed._replace(values=self._computed.values.clone())
