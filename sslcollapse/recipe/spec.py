"""The fixed part of a recipe, field by field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from sslcollapse.recipe.schema import AtLeast, AtMost, Between, Component, Distinct, Named, Probability, Word


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """How long and how to train.

    Args:
        steps: optimiser steps.
        checkpoint_every: steps between checkpoints, beside those by time; 0 for none.
        checkpoint_minutes: minutes between checkpoints, whatever the number of steps; 0 for none. One is always written
            after the last step, and when a signal stops the run.
        keep_checkpoints: how many of the newest are kept. With ``checkpoint_every`` these are of its steps, and the
            newest that the clock or a signal asked for is kept besides.
        log_every: steps between lines of ``metrics.jsonl``.
        precision: mixed precision, as Accelerate calls it.
        matmul: float32 products and convolutions on a GPU: ``"high"`` and ``"medium"`` are TF32, which keeps 10 bits of
            each factor, ``"highest"`` is float32. Penalties, losses, ranks and probes are never in TF32. On a CPU
            nothing changes.
        cudnn_benchmark: whether cuDNN tries its convolutions on a GPU and keeps the fastest; not if ``deterministic``.
        deterministic: whether a run of one seed gives the same bits again on the same GPU, which is slower; what has no
            such form is refused in the first step.
        trackers: Accelerate's experiment trackers, such as ``"tensorboard"``, ``"trackio"`` or ``"wandb"``.
        accumulate: batches whose gradients are averaged in one optimiser step.
        accumulate_coupled: names of the objective and regularizers that couple the samples of a batch and that
            accumulation is nevertheless meant for: they see each batch by itself, not the sum of them.
        channels_last: memory format of convolutions.
        compile: whether encoder and heads are compiled with ``torch.compile``.
        capture: whether steps on a GPU are captured as one CUDA graph and replayed: ``"auto"``, where nothing in them
            needs the host, as on a full-batch graph; ``"always"``, which refuses where something does; ``"never"``.
        sync_batchnorm: whether BatchNorm's statistics are those of all GPUs' samples.
        timeout_minutes: how long one of several processes waits for another in a collective, and for all to meet at the
            start, before it gives up.
        online_probe: train a linear classifier beside the encoder, on representations cut off from its gradient,
            with the same optimizer.
    """

    steps: Annotated[int, AtLeast(1)]
    checkpoint_every: Annotated[int, AtLeast(0)] = 0
    checkpoint_minutes: Annotated[float, AtLeast(0)] = 5.0
    keep_checkpoints: Annotated[int, AtLeast(1)] = 2
    log_every: Annotated[int, AtLeast(1)] = 10
    precision: Literal["no", "bf16", "fp16"] = "no"
    matmul: Literal["highest", "high", "medium"] = "high"
    cudnn_benchmark: bool = True
    deterministic: bool = False
    trackers: Annotated[Sequence[str], Distinct()] = ()
    accumulate: Annotated[int, AtLeast(1)] = 1
    accumulate_coupled: Annotated[Sequence[str], Distinct()] = ()
    channels_last: bool = False
    compile: bool = False
    capture: Literal["auto", "always", "never"] = "auto"
    sync_batchnorm: bool = True
    timeout_minutes: Annotated[float, AtLeast(0.1)] = 10.0
    online_probe: bool = False


@dataclass(frozen=True, kw_only=True)
class MonitorSpec:
    """When and how ranks are measured during training, and what else is measured that changes nothing learnt.

    Args:
        every: steps between measurements; 0 measures at the end only.
        rank_warning: fraction of its attainable rank below which a layer is warned about.
        on_collapse: what is done when a layer or a feature has collapsed, beside writing ``collapse.json``: ``"warn"``
            says so once, ``"stop"`` saves and ends the run; None looks for no collapse.
        below: fraction of its attainable rank below which a layer or a feature counts as low.
        patience: low measurements in a row that make a collapse.
        gradients: whether penalties' gradients are compared with the objective's.
        samples: most samples whose ranks are measured, evenly spaced over the probe set; None is all that a domain has
            at hand, as a graph has its nodes, and 4,096 of those that it makes a batch at a time.
        probe: whether a linear classifier in closed form is fitted wherever ranks are measured, which gives the course
            of accuracy over steps; None does it where all inputs are at hand, as the nodes of a graph are, since there
            it costs no more than one forward pass.
        baselines: whether the probes are also run, after training, on what a trained encoder is held against.
        timed: probes of ``evaluate`` that are run during training too, for accuracy over time. How long they take
            is written down apart from the rest.
        timed_every: steps between them; they are run after the last step as well.
        smoothness: whether Dirichlet energy and mean average distance of what layers put out are measured too, in
            domains whose samples have neighbours.
        overlap: dimension of the subspaces in which the weights of consecutive layers are compared; 0 for none.
    """

    every: Annotated[int, AtLeast(0)] = 100
    rank_warning: Probability = 0.1
    on_collapse: Literal["warn", "stop"] | None = None
    below: Annotated[float, Between(0, 1, open="left")] = 0.1
    patience: Annotated[int, AtLeast(1)] = 3
    gradients: bool = True
    samples: Annotated[int, AtLeast(2)] | None = None
    probe: bool | None = None
    baselines: bool = True
    timed: Annotated[Sequence[str], Distinct()] = ()
    timed_every: Annotated[int, AtLeast(1)] = 1000
    smoothness: bool = False
    overlap: Annotated[int, AtLeast(0)] = 0


@dataclass(frozen=True, kw_only=True)
class RecipeSpec:
    """The whole recipe; parts with ``type=`` are registered components.

    Args:
        name: of the recipe, and of the folder of its runs.
        seed: of weights, views and the order of samples.
        data_root: folder of all data sets.
        domain: where batches come from.
        encoder: the network whose representations are wanted.
        initialization: of the encoder's weights, by the layer map; by default as the encoder does it.
        objective: the loss, with the heads that it needs.
        regularizers: penalties on weights or features.
        constraints: sets of matrices that weights stay in.
        optim: the optimizer.
        train: how long and how.
        monitor: when ranks are measured.
        evaluate: probes.
    """

    name: Annotated[str, Word()]
    seed: Annotated[int, AtLeast(0), AtMost(2**63 - 1)] = 0  # what torch.manual_seed takes
    data_root: str | None = None
    domain: Annotated[dict[str, Any], Component("domain")]
    encoder: Annotated[dict[str, Any], Component("encoder")]
    initialization: Literal["orthogonal", "glorot", "identity"] | None = None
    objective: Annotated[dict[str, Any], Component("objective")]
    regularizers: Annotated[dict[str, Any], Named("regularizer")] = field(default_factory=dict)
    constraints: Annotated[dict[str, Any], Named("constraint")] = field(default_factory=dict)
    optim: Annotated[dict[str, Any], Component("optimizer")]
    train: TrainSpec
    monitor: MonitorSpec = MonitorSpec()
    evaluate: Annotated[dict[str, Any], Named("probe")] = field(default_factory=dict)
