"""What the benchmarks read out of machine code: instructions, loops, resources, floors."""

import shutil
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_kernels, sass
from benchmarks.gpu_kernels import CudaKernel, TritonKernel
from benchmarks.sass import budget, compiling
from benchmarks.sass.compiling import CompileError
from benchmarks.sass.listing import Resources, executed, functions, loops, reachable, resources
from benchmarks.sass.table import examine, render

# A loop within a loop, a forward branch, a call whose target is never fallen into, and padding.
LISTING = """
	code for sm_90
		Function : first
        /*0000*/                   LDC R1, c[0x0][0x28] ;             /* 0x00000a00ff017b82 */
                                                                      /* 0x000fe20000000800 */
        /*0010*/                   LDS.128 R4, [R2] ;                 /* 0x0000000000047984 */
        /*0020*/                   FFMA R0, R4, R5, R0 ;              /* 0x0000000504007223 */
        /*0030*/              @P0 BRA 0x20 ;                          /* 0xfffffffc00f00947 */
        /*0040*/              @!P1 BRA 0x60 ;                         /* 0x0000000000089947 */
        /*0050*/                   CALL.REL.NOINC 0xa0 ;              /* 0x0000000000087944 */
        /*0060*/                   BRA.U UP0, 0x10 ;                  /* 0xfffffffd00a80547 */
        /*0070*/                   STG.E desc[UR4][R2.64], R0 ;       /* 0x0000000002007986 */
        /*0080*/                   EXIT ;                             /* 0x000000000000794d */
        /*0090*/                   BRA 0x90;                          /* 0xfffffffc00fc7947 */
        /*00a0*/                   MUFU.RCP R0, R0 ;                  /* 0x0000000000007308 */
        /*00b0*/                   RET.REL.NODEC R2 0x0 ;             /* 0xffffffff00007950 */
        /*00c0*/                   NOP;                               /* 0x0000000000007918 */
		..........

		Function : second
        /*0000*/                   EXIT ;                             /* 0x000000000000794d */
"""
RESOURCES = """
Resource usage:
 Common:
  GLOBAL:0
 Function second:
  REG:10 STACK:0 SHARED:0 LOCAL:0 CONSTANT[0]:536 TEXTURE:0 SURFACE:0 SAMPLER:0
 Function first:
  REG:40 STACK:16 SHARED:2048 LOCAL:0 CONSTANT[0]:552 TEXTURE:0 SURFACE:0 SAMPLER:0
"""
# Eight multiply-adds and eight words of shared memory in every turn; the compiler may not unroll it.
CUDA = """
extern "C" __global__ void __launch_bounds__(128) blur(const float* in, float* out, int rows, float weight) {
    __shared__ float tile[256];
    float sum = 0.f;
#pragma unroll 1
    for (int row = 0; row < rows; ++row) {
        tile[threadIdx.x] = in[row * 128 + threadIdx.x];
        __syncthreads();
#pragma unroll
        for (int tap = 0; tap < 8; ++tap) sum = fmaf(tile[threadIdx.x + tap], weight, sum);
        __syncthreads();
    }
    out[blockIdx.x * 128 + threadIdx.x] = sum;
}
template <int N> __global__ void constant(float* out) { out[threadIdx.x] = N; }
template __global__ void constant<3>(float*);
template __global__ void constant<4>(float*);
"""


def test_listing_is_read_whole() -> None:
    code = functions(LISTING)
    assert {name: len(instructions) for name, instructions in code.items()} == {"first": 13, "second": 1}
    lds = code["first"][1]
    assert (lds.address, lds.name, lds.kind, lds.conditional) == (0x10, "LDS.128", "LDS", False)
    assert [(i.target, i.conditional) for i in code["first"] if i.kind == "BRA"] == [
        (0x20, True),
        (0x60, True),
        (0x10, True),
        (0x90, False),
    ]


def test_slow_path_and_padding_are_left_out() -> None:
    found = reachable(functions(LISTING)["first"])
    assert [instruction.address for instruction in found] == list(range(0, 0x90, 0x10))


def test_loops_are_nested_and_weigh_their_bodies() -> None:
    instructions = reachable(functions(LISTING)["first"])
    assert [(loop.first, loop.last, loop.length) for loop in loops(instructions)] == [(0x10, 0x60, 6), (0x20, 0x30, 2)]
    counts = executed(instructions, (10, 3))
    assert counts["FFMA"] == 10 * 3
    assert counts["LDS.128"] == 10
    assert counts["STG.E"] == counts["LDC"] == 1
    assert "MUFU.RCP" not in counts


def test_loop_without_a_number_counts_once() -> None:
    counts = executed(reachable(functions(LISTING)["first"]), (10,))
    assert counts["FFMA"] == 10


def test_resources_belong_to_their_function() -> None:
    assert resources(RESOURCES) == {"second": Resources(10, 0, 0), "first": Resources(40, 16, 2048)}


# By NVIDIA's occupancy calculator.
@pytest.mark.parametrize(
    ("architecture", "threads", "registers", "shared", "expected"),
    [
        (90, 256, 32, 0, 1.0),
        (90, 256, 64, 0, 0.5),
        (90, 256, 33, 0, 0.75),
        (90, 128, 255, 0, 8 / 64),
        (90, 256, 32, 48 << 10, 4 * 8 / 64),
        (80, 256, 32, 48 << 10, 3 * 8 / 64),
        (80, 32, 16, 0, 32 / 64),
    ],
)
def test_occupancy(architecture: int, threads: int, registers: int, shared: int, expected: float) -> None:
    assert budget.occupancy(architecture, threads, registers, shared) == expected


def test_floors_of_a_fused_loss_on_an_h200() -> None:
    """176 multiply-adds a pixel and 12 bytes: 5.3 us of arithmetic and 2.5 us of memory for a million pixels."""
    found = budget.floors({"FFMA": 176.0, "LDS.64": 10.0, "MUFU.RCP": 2.0}, 1.0, 12.0, budget.H200)
    cycles = 132 * 1.98e9
    assert found["multiply-adds"] == pytest.approx(176e6 / (128 * cycles))
    assert found["issue"] == pytest.approx(188e6 / (128 * cycles))
    assert found["shared memory"] == pytest.approx(20e6 / (32 * cycles))
    assert found["special functions"] == pytest.approx(2e6 / (16 * cycles))
    assert found["memory"] == pytest.approx(12e6 / 4.8e12)


def _need(tool: str) -> None:
    try:
        compiling._run(tool, "--version")
    except CompileError as error:
        pytest.skip(str(error))


@pytest.fixture
def cuda_source(tmp_path: Path) -> Path:
    for tool in ("nvcc", "cuobjdump", "nvdisasm"):
        _need(tool)
    source = tmp_path / "kernel.cu"
    source.write_text(CUDA)
    return source


@pytest.mark.parametrize("architecture", [80, 90])
def test_cuda_kernel_is_counted(cuda_source: Path, architecture: int) -> None:
    kernel = CudaKernel(
        name="blur", entry="blur", threads=128, pixels=128, turns=(20,), least_bytes=8, source=str(cuda_source)
    )
    facts = examine(kernel, architecture)
    assert len(facts.loops) == 1
    assert facts.per_pixel("FFMA") == 20 * 8
    assert facts.per_pixel("LDS") == 20 * 8
    assert facts.per_pixel("LDG") == facts.per_pixel("STS") == 20
    assert facts.per_pixel("STG") == 1
    assert facts.shared_bytes == 1024
    assert facts.spills == 0
    assert facts.occupancy == 1.0


def test_instances_of_a_template_are_told_apart(cuda_source: Path) -> None:
    common = {"name": "constant", "entry": "constant", "threads": 32, "pixels": 32, "least_bytes": 4}
    kernel = CudaKernel(**common, variant="Li3E", source=str(cuda_source))  # type: ignore[arg-type]
    assert examine(kernel, 90).per_pixel("STG") == 1
    either = CudaKernel(**common, source=str(cuda_source))  # type: ignore[arg-type]
    with pytest.raises(CompileError, match="fit 2 functions"):
        examine(either, 90)


def test_compiler_error_is_quoted(tmp_path: Path) -> None:
    _need("nvcc")
    source = tmp_path / "broken.cu"
    source.write_text("__global__ void broken() { nonsense; }")
    kernel = CudaKernel(name="x", entry="x", threads=32, pixels=32, least_bytes=4, source=str(source))
    with pytest.raises(CompileError, match='"nonsense" is undefined'):
        examine(kernel, 90)


def test_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *arguments, **options: None)
    with pytest.raises(CompileError, match="nvcc was found neither on PATH nor in triton's package"):
        compiling._run("nvcc")


def _multiply_add_chains() -> TritonKernel:
    pytest.importorskip("triton", reason="triton is not installed")
    from benchmarks.multiply_add import LANES, STEPS

    return TritonKernel(
        name="multiply-add chains",
        entry="multiply_add_chains",
        threads=128,
        pixels=LANES,
        turns=(7,),
        least_bytes=4,
        module="benchmarks.multiply_add",
        function="multiply_add_chains",
        signature={"output": "*fp32", "turns": "i32"},
        constants={"LANES": LANES, "STEPS": STEPS},
        aligned=("output",),
    )


@pytest.mark.parametrize("architecture", [80, 90])
def test_ceiling_kernel_does_nothing_but_multiply_add(architecture: int) -> None:
    """The rate that a GPU is measured at counts on this: no multiply-add is optimised away, little else is run."""
    kernel = _multiply_add_chains()
    _need("cuobjdump")
    from benchmarks.multiply_add import STEPS

    facts = examine(kernel, architecture)
    (loop,) = facts.loops
    assert facts.per_pixel("FFMA") == 7 * STEPS
    in_loop = STEPS * kernel.pixels / kernel.threads
    assert in_loop / loop.length > 0.98


def test_table_names_what_binds(cuda_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = CudaKernel(
        name="blur", entry="blur", threads=128, pixels=128, turns=(20,), least_bytes=8, source=str(cuda_source)
    )
    monkeypatch.setattr(sass, "KERNELS", (kernel,))
    output = tmp_path / "sass.md"
    assert sass.write_table(output) == 0
    rows = [line for line in output.read_text().splitlines() if line.startswith("| blur")]
    assert [row.split(" | ")[1] for row in rows] == ["80", "90"]
    # 160 words of shared memory a pixel at 32 words a cycle, against 160 multiply-adds at 128.
    assert rows[1].endswith("| shared memory |")
    assert output.read_text() == render([examine(kernel, architecture) for architecture in (80, 90)]) + "\n"


def test_kernel_that_is_gone_is_a_failure(cuda_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = CudaKernel(name="gone", entry="gone", threads=128, pixels=128, least_bytes=8, source=str(cuda_source))
    monkeypatch.setattr(sass, "KERNELS", (kernel,))
    assert sass.write_table(tmp_path / "sass.md") == 1


def test_declared_kernels_have_names_of_their_own() -> None:
    names = [kernel.name for kernel in gpu_kernels.KERNELS]
    assert len(names) == len(set(names))
    for kernel in gpu_kernels.KERNELS:
        if isinstance(kernel, TritonKernel):
            assert kernel.threads == 32 * kernel.warps, kernel.name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
def test_ceiling_kernel_computes_what_it_says() -> None:
    pytest.importorskip("triton", reason="triton is not installed")
    from benchmarks.multiply_add import LANES, STEPS, run_chains

    output = torch.full((4 * LANES,), torch.nan, device="cuda")
    run_chains(output, 2)
    start = torch.arange(4 * LANES, dtype=torch.float64)
    expected = 2 + (start - 2) * 0.5 ** (2 * STEPS)
    assert float((output.double().cpu() - expected).abs().max()) == 0
