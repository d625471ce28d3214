"""The training loop: one function, read top to bottom."""

import logging
import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm.auto import tqdm

from ltlib.checkpoints import (
    load_checkpoint,
    read_pretrained,
    remove_checkpoints,
    save_checkpoint,
)
from ltlib.config import ExperimentConfig
from ltlib.data import (
    EpochBatches,
    load_dataset,
    takes_batched_views,
    test_loader,
    train_loader,
)
from ltlib.distributed import all_equal, any_rank, is_main, rank, share_buffers, world_size
from ltlib.execution import Execution, Precision, Views, describe
from ltlib.methods import build_method
from ltlib.runs import RESULT, RunError, is_finished, read_json, write_history
from ltlib.trainer.endings import NonFiniteLossError, responsible_for, with_plain_errors
from ltlib.trainer.evaluation import accuracies, describe_geometry, evaluate
from ltlib.trainer.preparation import build_optimizer, prepare
from ltlib.trainer.results import summary, write_results
from ltlib.trainer.schedule import learning_rate
from ltlib.trainer.signals import Stopped, stop_signals
from ltlib.views import derive_seed

logger = logging.getLogger(__name__)

_SAVE_SHARE = 0.01  # of the time, at most, goes into the checkpoints of epochs' ends


def train(
    config: ExperimentConfig,
    run_dir: Path | str,
    *,
    data_root: Path | str | None = None,
    device: str | None = None,
    precision: Precision = "auto",
    num_workers: int | None = None,
    views: Views | None = None,
    compiled: bool | None = None,
    download: bool = False,
    checkpoint_seconds: float = 300.0,
) -> dict:
    """Train an experiment to its end, or continue it; a finished run is only read.

    Args:
        config: The experiment.
        run_dir: Its folder, from ``runs.open_run``.
        data_root: Folder searched first for the data set.
        device, precision, num_workers, views, compiled: See ``Execution.choose``. A resumed run
            keeps the precision, views and compilation that it began with, unless told otherwise.
        download: Whether a missing data set may be downloaded.
        checkpoint_seconds: Longest time between checkpoints. An epoch's end makes one too, unless
            saving would cost more than 1 % of the time since the last; resuming repeats such an
            epoch exactly.

    Returns:
        The content of ``result.json``: the last and the best epoch, accuracies as fractions.

    Raises:
        Stopped: If a signal arrived; the run resumes when started again.
        NonFiniteLossError: If the loss is NaN or infinite.
        ValueError, FileNotFoundError: If the experiment or its data cannot be had.
    """
    run_dir = Path(run_dir)
    if is_finished(run_dir):
        return read_json(run_dir / RESULT)
    with stop_signals() as stop, responsible_for(run_dir):
        state = load_checkpoint(run_dir)
        begun = state["execution"] if state else None
        execution = Execution.choose(device, precision, num_workers, views, compiled, begun)
        train_set, test_set = (
            load_dataset(
                config.data, Path(data_root) if data_root else None, part, download=download
            )
            for part in (True, False)
        )
        counts = train_set.class_counts
        if not takes_batched_views(train_set, config.data.views):
            execution = replace(execution, views="pil")
        loader = train_loader(
            train_set,
            config.data.views,
            batch_size=config.optim.batch_size,
            seed=config.seed,
            drop_last=config.optim.drop_last,
            num_workers=execution.num_workers,
            device=execution.device if execution.views == "batched" else None,
            rank=rank(),
            world_size=world_size(),
        )
        batches: EpochBatches = loader.batch_sampler  # type: ignore[assignment]
        tests = test_loader(
            test_set, num_workers=execution.num_workers, rank=rank(), world_size=world_size()
        )

        torch.manual_seed(config.seed)
        method = build_method(config, counts.tolist())
        pretrained = state.get("pretrained") if state else None
        if config.model.pretrained and not state:
            weights, pretrained = read_pretrained(config.model.backbone, data_root)
            method.start_from(weights)
        step_module, execution = prepare(method, config, len(batches), execution)
        optimizer = build_optimizer(method, config.optim, execution)

        start_epoch, start_step, seconds = 0, 0, 0.0
        history: list[dict[str, float]] = []
        records: list[Tensor] = []  # of this epoch's steps: the loss and its terms
        terms: list[str] = []
        if state:
            method.load_state_dict(state["method"])
            optimizer.load_state_dict(state["optimizer"])
            start_epoch, start_step, seconds = state["epoch"], state["step"], state["seconds"]
            history, terms = state["history"], state["terms"]
            records = list(state["records"].to(execution.device))
            logger.info("resuming %s at epoch %d step %d", run_dir, start_epoch, start_step)
        if not all_equal(start_epoch * len(batches) + start_step):
            raise RunError(
                f"the processes of {run_dir} find different checkpoints there; "
                "choose a folder that all their machines share"
            )

        started = epoch_started = saved = time.monotonic()
        save_seconds = 0.0

        def save(epoch: int, step: int) -> None:
            nonlocal saved, save_seconds
            begun = time.monotonic()
            if is_main():
                save_checkpoint(
                    run_dir,
                    {
                        "method": method.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "execution": execution.choices(),
                        "epoch": epoch,
                        "step": step,
                        "seconds": seconds + time.monotonic() - started,
                        "history": history,
                        "terms": terms,
                        "pretrained": pretrained,
                        "records": torch.stack(records).cpu() if records else torch.empty(0),
                    },
                )
            saved = time.monotonic()
            save_seconds = saved - begun

        events = SummaryWriter(str(run_dir), purge_step=start_epoch) if is_main() else None
        for epoch in range(start_epoch, config.optim.epochs):
            lr = learning_rate(config.optim, epoch)
            for group in optimizer.param_groups:
                group["lr"] = lr
            if start_step == 0:
                torch.manual_seed(derive_seed(config.seed, epoch))
                method.on_epoch_start(epoch)
            batches.set_epoch(epoch, start_step)
            step_module.train()
            for step, (images, targets) in _progress(loader, epoch, start_step, len(batches)):
                # Whatever a step draws is a function of its number: resuming repeats it exactly.
                torch.manual_seed(derive_seed(config.seed, epoch, step))
                with execution.autocast():
                    output = step_module(
                        [execution.place(view) for view in images],
                        targets.to(execution.device, non_blocking=True),
                    )
                optimizer.zero_grad(set_to_none=True)
                output.loss.backward()
                optimizer.step()
                terms = list(output.terms)
                records.append(torch.stack([output.loss, *output.terms.values()]).detach())
                _ensure_finite(records, epoch, lag=execution.device.type == "cuda")

                # All processes save and stop at the same step, or none.
                if any_rank(stop.is_set() or time.monotonic() - saved > checkpoint_seconds):
                    _ensure_finite(records, epoch)
                    save(epoch, step + 1)
                    if any_rank(stop.is_set()):
                        where = f"epoch {epoch} step {step}"
                        raise Stopped(f"stopped at {where}; start again to resume", stop.number)

            _ensure_finite(records, epoch)
            means = torch.stack(records).mean(dim=0).tolist()
            share_buffers(method)
            try:
                evaluation = evaluate(method, tests, execution, stop)
            except Stopped:
                save(epoch, len(batches))
                raise
            now = time.monotonic()
            row = {"epoch": epoch, "lr": lr, "loss": means[0]}
            row |= {f"loss/{name}": x for name, x in zip(terms, means[1:], strict=True)}
            row |= accuracies(evaluation, counts) | {"seconds": now - epoch_started}
            history.append(row)
            records, start_step, epoch_started = [], 0, now
            if events is not None:
                write_history(run_dir, history)
                for name, value in row.items():
                    events.add_scalar(name, value, epoch)
                logger.info(
                    "%s epoch %d/%d  loss %.4f  accuracy %.2f %%  %.1f s",
                    *(run_dir, epoch + 1, config.optim.epochs, row["loss"]),
                    *(100 * row["all"], row["seconds"]),
                )
            last = epoch + 1 == config.optim.epochs
            if last or save_seconds < _SAVE_SHARE * (time.monotonic() - saved):
                save(epoch + 1, 0)

        if start_epoch == config.optim.epochs:  # it was stopped just before its result
            evaluation = evaluate(method, tests, execution, stop)
        arrays = describe_geometry(method, tests, counts, execution, stop)
        result = summary(history)
        if events is not None:
            events.close()
            provenance = describe(execution) | {"seconds": seconds + time.monotonic() - started}
            provenance |= {"pretrained": pretrained} if pretrained else {}
            write_results(run_dir, method, evaluation, train_set, arrays, provenance, result)
            remove_checkpoints(run_dir)
        return result


def _ensure_finite(records: list[Tensor], epoch: int, lag: bool = False) -> None:
    """Stop on a loss that is not finite; with a lag the GPU is not waited for."""
    step = len(records) - 1 - lag
    if step >= 0 and not math.isfinite(records[step][0].item()):
        raise NonFiniteLossError(
            f"loss is {records[step][0].item()} at epoch {epoch} step {step}; "
            "lower optim.lr or lengthen optim.warmup_epochs"
        )


def _progress(
    loader: DataLoader, epoch: int, start_step: int, steps: int
) -> Iterator[tuple[int, tuple[list[Tensor], Tensor]]]:
    # Only a Jupyter server names its session; papermill's kernels have none and print lines.
    interactive = sys.stderr.isatty() or "JPY_SESSION_NAME" in os.environ
    bar = tqdm(
        loader,
        desc=f"epoch {epoch + 1}",
        initial=start_step,
        total=steps,
        leave=False,
        disable=not (interactive and is_main()),
    )
    return enumerate(with_plain_errors(bar), start_step)
