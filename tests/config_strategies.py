"""Hypothesis strategies for every configuration that is accepted."""

from pathlib import Path
from typing import get_args

from hypothesis import strategies as st

from twostage.config import (
    BlendName,
    Color,
    ComputeConfig,
    Config,
    DataConfig,
    DefectConfig,
    LossConfig,
    LossName,
    MapName,
    ModelConfig,
    Precision,
    ScoringConfig,
    Skips,
    StageConfig,
)


def ranges(low: float, high: float) -> st.SearchStrategy[tuple[float, float]]:
    return st.tuples(st.floats(low, high), st.floats(low, high)).map(lambda pair: (min(pair), max(pair)))


# What a file name may hold on Linux and UTF-8 can write.
paths = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8).map(Path)

data_configs = st.builds(
    lambda place, home, **others: DataConfig(**place, **home, **others),
    place=st.one_of(st.just({}), paths.map(lambda path: {"root": path}), paths.map(lambda path: {"manifest": path})),
    home=st.one_of(
        st.sampled_from(("auto", "memory", "cache")).map(lambda home: {"home": home}),
        st.builds(lambda home, path: {"home": home, "shards": path}, st.sampled_from(("auto", "shards")), paths),
    ),
    image_size=st.none() | st.integers(512, 10_000),
    color=st.sampled_from(get_args(Color)),
    validation_fraction=st.floats(0, 1, exclude_min=True, exclude_max=True),
    validation_limit=st.integers(1, 10**9),
    max_pixels=st.integers(1, 10**12),
    cache=st.none() | paths,
)
model_configs = st.builds(
    ModelConfig,
    patch_size=st.integers(4, 32).map(lambda count: 16 * count),
    latent_channels=st.integers(1, 1000),
    skips=st.sampled_from(get_args(Skips)),
)
defect_configs = st.builds(
    DefectConfig,
    probability=st.floats(0, 1),
    max_defects=st.integers(1, 8),
    size=ranges(0.01, 1),
    elongation=ranges(1, 50),
    resize=ranges(0.1, 10),
    blur_sigma=ranges(0, 16),
    blur_share=ranges(0, 1),
    strength=ranges(0, 1),
    brightness=st.floats(0, 1),
    contrast=ranges(0, 10),
    blend=st.sampled_from(get_args(BlendName)),
    edge_amplitude=ranges(0, 64),
    edge_grain=ranges(1, 1e6),
    sources=st.none() | paths,
    candidates=st.integers(1, 100),
)
loss_configs = st.builds(
    LossConfig,
    name=st.sampled_from(get_args(LossName)),
    weights=st.tuples(*[st.floats(0, 1e6)] * 3).filter(any),
    similarity_share=st.floats(0, 1),
    window_size=st.integers(1, 31).map(lambda half: 2 * half + 1),
    sigma=st.tuples(*[st.floats(1e-3, 1e3)] * 2),
    sigma_step=st.none() | st.floats(0, 10),
)
stage_configs = st.builds(
    StageConfig,
    epochs=st.integers(1, 1000),
    loss=loss_configs,
    defective=st.booleans(),
    learning_rate=st.floats(1e-9, 1),
)
scoring_configs = st.builds(
    ScoringConfig,
    map=st.sampled_from(("auto", "residual", "ssim", "combined")),
    lpips=st.booleans(),
    smoothing=st.none() | st.floats(0, 64),
    overlap=st.floats(0, 0.94),
    image_fraction=st.floats(0, 1, exclude_min=True),
    quantile=st.floats(0, 1, exclude_min=True),
) | st.builds(ScoringConfig, map=st.sampled_from(get_args(MapName)), lpips=st.just(True))
compute_configs = st.builds(
    ComputeConfig,
    precision=st.sampled_from(get_args(Precision)),
    channels_last=st.booleans(),
    compile=st.booleans(),
    cuda_graph=st.booleans(),
    log_every=st.none() | st.integers(1, 10**6),
)
configs = st.builds(
    Config,
    data=data_configs,
    model=model_configs,
    defects=defect_configs,
    first_stage=stage_configs,
    second_stage=stage_configs,
    scoring=scoring_configs,
    compute=compute_configs,
    batch_size=st.integers(1, 10_000),
    seed=st.integers(0, 2**63 - 1),
    checkpoint_every=st.integers(1, 10**9),
    device=st.sampled_from(["auto", "cpu", "cuda", "cuda:1"]),
    lpips_weights=st.none() | paths,
)
