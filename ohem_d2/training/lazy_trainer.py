"""Training and evaluation of Detectron2's Python configs (LazyConfig)."""

import logging
import weakref
from argparse import Namespace
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path

from detectron2.config import instantiate
from detectron2.data import MetadataCatalog
from detectron2.engine import (
    AMPTrainer,
    HookBase,
    SimpleTrainer,
    default_setup,
    default_writers,
    hooks,
)
from detectron2.evaluation import (
    DatasetEvaluator,
    inference_on_dataset,
    print_csv_format,
)
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.utils.data import DataLoader

from ..config import check_start_iter
from ..data import (
    read_all_images,
)
from ..errors import InputError, shown
from ..evaluation.evaluators import build_evaluator
from ..modeling.head_checks import check_classes_of_heads
from ..modeling.mixin import OHEMMixin
from ..modeling.ohem_dense import OHEMDenseMixin
from ..modeling.ohem_rpn import OHEMRPN
from ..visualization import DetectionPictures, MinedPictures, detections_file
from . import part_outputs, unread_options
from .checkpoint import WholeCheckpointer, classes_of_weights
from .checks import (
    check_batch_size,
    check_output_dir,
    check_seed,
    check_weights,
    warn_of_unused_weights,
)
from .choice import LAZY_KEYS, warn_without_choice
from .data_checks import (
    check_datasets,
    check_num_classes,
    class_names,
    named_annotations,
    named_data_sets,
)
from .data_loader import ResumableLoader, shield_workers, try_batch
from .device import usable_amp
from .distributed import wrap_ddp
from .divergence import watch_for_divergence
from .first_batch import check_first_batch
from .given_images import NothingGivenError, limit_nothing
from .ignore_regions import lazy_options, use_ignore_regions_lazily
from .interruption import ResumeHook
from .lazy_agreement import check_evaluated, check_mappers
from .lazy_config import keys_of_python_configs, load_lazy_config
from .lazy_data import (
    check_lazy_needs,
    data_sets_of,
    data_sets_of_images,
    is_by_coco,
    key_of_heads,
    key_of_names,
    keypoint_sigmas,
    register_lazy_datasets,
    unreadable_images,
)
from .lazy_names import warn_of_unread_names
from .lazy_shapes import check_shapes
from .lazy_targets import make
from .limits import warn_of_limits
from .mining_logs import MiningLogs
from .named_settings import named_settings
from .no_learning import warn_of_frozen_layers, warn_of_no_learning
from .output_folder import (
    alone_in,
    check_output_files,
    check_space,
    config_kept,
    mend_metrics,
    tell_of_earlier_training,
)
from .overrides import warn_of_unused_overrides
from .part_outputs import check_outputs_once
from .processes import check_workers
from .proposal_files import check_lazy_use, check_proposal_files
from .repeated_settings import warn_of_repeated_settings
from .resumed_config import check_config_of_weights, config_text
from .schedule import settings_of, with_an_end
from .trial import name_first_step, try_augmentations, try_losses, try_model
from .unbroken_writers import unbroken
from .units import check_units
from .unread_options import warn_of_unread_options
from .whole_files import whole_files

logger = logging.getLogger(__name__)


def run(args: Namespace) -> dict | None:
    """
    Train or evaluate, as the command line says. There is one training in ``train.output_dir`` at a
    time; evaluations may run beside it.

    Args:
        args: what Detectron2's `default_argument_parser` returns, with the path of a Python config
            that has what those of Detectron2's model zoo have.

    Returns:
        the results of the evaluation if there is nothing else to do, on the main process.

    Raises:
        InputError: the config, a data set or the weights are wrong or missing, or another training
            runs in ``train.output_dir``.
    """
    cfg = load_lazy_config(args.config_file, args.opts, training=not args.eval_only)
    output_dir = cfg.train.output_dir
    check_output_dir("train.output_dir", output_dir)
    check_output_files("train.output_dir", output_dir, training=not args.eval_only)
    alone = nullcontext() if args.eval_only else alone_in("train.output_dir", output_dir)
    kept = config_kept(output_dir, not args.eval_only)
    with alone, whole_files(), kept as begin, keys_of_python_configs():
        return _run(args, cfg, output_dir, begin)


def _run(
    args: Namespace, cfg: DictConfig, output_dir: str, begin: Callable[[], None]
) -> dict | None:
    setup_logger(output_dir, distributed_rank=comm.get_rank(), name="ohem_d2")
    for split in ("test",) if args.eval_only else ("train", "test"):
        key = f"dataloader.{split}.num_workers"
        check_workers(key, OmegaConf.select(cfg, key) or 0)
    check_units(cfg, training=not args.eval_only)
    warn_of_limits(cfg, training=not args.eval_only)
    warn_of_repeated_settings(args.opts, is_yaml=False)
    warn_of_unread_names(cfg, args.config_file)
    if not args.eval_only:
        amp = cfg.train.amp
        amp.enabled = usable_amp("train.amp.enabled", amp.enabled, cfg.train.device)
        warn_of_no_learning(cfg)
        tell_of_earlier_training("train.output_dir", output_dir, args.resume)
        mend_metrics(output_dir)
    keys = {key_of_names(split): data_sets_of(cfg, split) for split in ("train", "test")}
    with named_data_sets(keys), named_annotations():
        run_of = cfg.train.init_checkpoint, output_dir, args.resume
        register_lazy_datasets(cfg, classes_of_weights(*run_of, training=not args.eval_only))
        train = () if args.eval_only else data_sets_of(cfg, "train")
        names = [*train, *data_sets_of(cfg, "test")]
        check_datasets(*names)
        for split in ("test",) if args.eval_only else ("train", "test"):
            key = f"dataloader.{split}.dataset.proposal_files"
            check_lazy_use(cfg, split, key)
            if (files := OmegaConf.select(cfg, key)) is not None:
                check_proposal_files(key, files, data_sets_of(cfg, split), "it")
        key = f"{key_of_heads(cfg)}.num_classes"
        if (num_classes := OmegaConf.select(cfg, key)) is not None:
            check_num_classes(key, num_classes, names)
    if not args.eval_only:
        batch_size = OmegaConf.select(cfg, "dataloader.train.total_batch_size")
        if batch_size is not None:
            check_batch_size("dataloader.train.total_batch_size", batch_size)
    if isinstance(seed := OmegaConf.select(cfg, "train.seed"), int):
        check_seed("train.seed", seed)
    check_lazy_needs(cfg, train)
    check_mappers(cfg, training=not args.eval_only)
    with named_annotations():
        check_evaluated(cfg, args.opts)
    weights = ("train.init_checkpoint", cfg.train.init_checkpoint, output_dir)
    check_weights(*weights, resume=args.resume, training=not args.eval_only)
    if args.eval_only and args.resume and any(x.startswith(f"{weights[0]}=") for x in args.opts):
        warn_of_unused_weights(*weights)
    with named_data_sets(keys), named_annotations():
        read = {x: data_sets_of_images(cfg, x) for x in ("train", "test")}
        read_all_images(
            () if args.eval_only else read["train"], read["test"], unreadable_images(cfg)
        )
    check_config_of_weights(cfg, *run_of, training=not args.eval_only)
    text = config_text(cfg)
    default_setup(cfg, args)
    if not args.eval_only:
        use_ignore_regions_lazily(cfg, train)

    settings = (args.config_file, cfg, args.opts)
    for split in ("test",) if args.eval_only else ("train", "test"):
        key = f"dataloader.{split}.mapper.augmentations"
        if OmegaConf.is_list(augmentations := OmegaConf.select(cfg, key)):
            with named_settings(*settings):
                augmentations = instantiate(augmentations)
            try_augmentations(augmentations, key)
    try:
        with named_settings(*settings):
            model = make(cfg, "model").to(cfg.train.device)
    except ImportError as e:  # also of a package that Detectron2 does not install
        raise InputError(f"the model cannot be built: {e}") from e
    if hasattr(model, "roi_heads"):
        check_classes_of_heads(model.roi_heads)
    check_shapes(model)
    given = [x.partition("=")[0].lstrip("+") for x in args.opts]
    if args.eval_only:
        checkpointer = WholeCheckpointer(model, output_dir)
        checkpointer.class_names = class_names(data_sets_of(cfg, "test"))
        checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=args.resume)
        warn_of_unread_options(model, unread_options.LAZY_KEYS, training=False, given=given)
        try_model(model, named_settings(*settings, verb="evaluated"), checkpointer.loaded)
        check_outputs_once(model, part_outputs.LAZY_KEYS)
        return evaluate(cfg, model)

    with named_settings(*settings):
        # Which fail before the training rather than after it.
        if build_lazy_evaluators(cfg):
            try_batch(_test_loader(cfg))
    mines = OHEMMixin, OHEMRPN, OHEMDenseMixin
    for key in ("model", "model.roi_heads", "model.proposal_generator"):
        part = getattr(model, key.partition(".")[2], None) if "." in key else model
        if isinstance(part, mines):
            check_start_iter(part.ohem, f"{key}.ohem.start_iter", cfg.train.max_iter)
    warn_without_choice(model, LAZY_KEYS)
    batch_size = OmegaConf.select(cfg, "dataloader.train.total_batch_size")
    warn_of_unread_options(
        model,
        unread_options.LAZY_KEYS,
        regions=lazy_options(cfg),
        images=batch_size and batch_size // comm.get_world_size(),
        given=given,
    )
    check_outputs_once(model, part_outputs.LAZY_KEYS)
    with named_settings(*settings):
        trainer, checkpointer = build_trainer(cfg, model)
    checkpointer.config = text
    check_space("train.output_dir", output_dir, model, trainer.optimizer)
    rate = OmegaConf.select(cfg, "optimizer.lr")
    watch_for_divergence(trainer, "optimizer.lr", rate)
    name_first_step(trainer, named_settings(*settings, verb="trained"))
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=args.resume)
    resumed = args.resume and checkpointer.has_checkpoint()
    if not resumed:
        warn_of_frozen_layers(cfg, model)
        start = checkpointer.loaded if cfg.train.init_checkpoint else ""
        try_losses(trainer, named_settings(*settings, verb="trained"), start)
        key = "dataloader.train"
        has_mapper = OmegaConf.select(cfg, f"{key}.mapper") is not None
        is_detectron2s = bool(trainer.data_loader.name_of_sampler())
        mapper = f"{key}.mapper" if has_mapper and is_detectron2s else key
        naming = named_settings(*settings, verb="trained")
        check_first_batch(trainer, cfg.train.max_iter, mapper, naming)
    begin()
    trainer.train(trainer.iter + 1 if resumed else 0, cfg.train.max_iter)
    logger.info(f"Done: weights, logs and pictures are in {output_dir}")
    return None


def build_trainer(cfg: DictConfig, model: nn.Module) -> tuple[SimpleTrainer, WholeCheckpointer]:
    """
    Build the trainer that a Python config describes, with Detectron2's hooks and this project's.

    Args:
        cfg: the config, with its data sets registered.
        model: the model, on its device.

    Returns:
        the trainer, and what loads and saves its state.
    """
    # Of the bare model, by whose names of parameters some configs choose learning rates.
    cfg.optimizer.params.model = model
    optimizer = make(cfg, "optimizer")
    warn_of_unused_overrides(cfg, model, optimizer)
    model = wrap_ddp(model, **cfg.train.ddp)
    trainer_class = AMPTrainer if cfg.train.amp.enabled else SimpleTrainer
    with named_annotations():
        loader = ResumableLoader(instantiate(cfg.dataloader.train))
    trainer = trainer_class(model, loader, optimizer)
    trainer.max_iter = cfg.train.max_iter
    output_dir = cfg.train.output_dir
    # A proxy, as in DefaultTrainer: in a cycle, the workers would be waited for at the end.
    checkpointer = WholeCheckpointer(model, output_dir, trainer=weakref.proxy(trainer))
    checkpointer.class_names = class_names(data_sets_of(cfg, "train"))

    scheduler = with_an_end(
        make(cfg, "lr_multiplier"), "lr_multiplier", cfg.train.max_iter, settings_of(cfg)
    )
    on_all: list[HookBase] = [
        hooks.IterationTimer(),
        hooks.LRScheduler(scheduler=scheduler),
        MiningLogs(cfg.train.log_period),
        ResumeHook(checkpointer, **cfg.train.checkpointer, eval_period=cfg.train.eval_period),
    ]
    on_main = []
    if comm.is_main_process():
        writers = unbroken(default_writers(output_dir, cfg.train.max_iter), output_dir)
        on_main.append(hooks.PeriodicWriter(writers, period=cfg.train.log_period))
        if data_sets_of(cfg, "train"):
            file = Path(output_dir) / "pictures" / "mined.jpg"
            metadata = MetadataCatalog.get(data_sets_of(cfg, "train")[0])
            image_format = OmegaConf.select(cfg, "model.input_format") or "BGR"
            period = OmegaConf.select(cfg, "model.vis_period") or 0
            on_main.append(MinedPictures(file, metadata, image_format, period))
    evaluation = hooks.EvalHook(cfg.train.eval_period, lambda: evaluate(cfg, model))
    trainer.register_hooks([*on_all, evaluation, *on_main])
    return trainer, checkpointer


def evaluate(cfg: DictConfig, model: nn.Module) -> dict | None:
    """
    Evaluate a model with ``dataloader.test``.

    Returns:
        the results, on the main process.
    """
    with named_annotations():
        evaluators = build_lazy_evaluators(cfg)
    if not evaluators:
        logger.warning("Nothing is evaluated: the config has no dataloader.evaluator")
        return None
    loader = _test_loader(cfg)
    try:
        results = inference_on_dataset(model, loader, evaluators)
    except NothingGivenError as e:
        raise InputError(
            f"dataloader.test.mapper: {e} for an image, expected a dict with 'image': in its "
            "place, Detectron2 would evaluate another image twice"
        ) from e
    if comm.is_main_process():
        _check_results(results)
        print_csv_format(results)
    return results


def _check_results(results: object) -> None:
    """Make sure that evaluators of the user's own give what Detectron2 logs and prints."""
    key = "dataloader.evaluator gives"
    if not isinstance(results, Mapping):
        raise InputError(f"{key} {shown(results)}, expected a dict of metrics by task")
    if not results:
        logger.warning(f"{key} no results, expected a dict of metrics by task")
    for task, metrics in results.items():
        for name, value in metrics.items() if isinstance(metrics, Mapping) else [("", metrics)]:
            try:
                float(value)
            except (TypeError, ValueError):
                where = f"{task}/{name}" if name else task
                raise InputError(f"{key} {shown(value)} as {where}, expected a number") from None


def _test_loader(cfg: DictConfig) -> DataLoader:
    with named_annotations():
        loader = instantiate(cfg.dataloader.test)
    if not isinstance(loader, DataLoader):
        raise InputError(
            f"dataloader.test makes a {type(loader).__name__}, expected a torch.utils.data."
            "DataLoader, such as build_detection_test_loader makes"
        )
    limit_nothing(loader.dataset, most=1)
    return shield_workers(loader)


def build_lazy_evaluators(cfg: DictConfig) -> list[DatasetEvaluator]:
    """What a data set's address says, or what the config says; and pictures."""
    names, output_dir = data_sets_of(cfg, "test"), cfg.train.output_dir
    if names and "://" in names[0]:
        return [build_evaluator(names[0], output_dir, keypoint_sigmas(cfg))]
    if "evaluator" not in cfg.dataloader:
        return []
    evaluator = cfg.dataloader.evaluator
    needs_folder = any(MetadataCatalog.get(n).get("json_file") is None for n in names)
    if needs_folder and is_by_coco(cfg) and evaluator.get("output_dir") is None:
        # In which it writes the annotations as COCO's JSON.
        key, folder = "dataloader.evaluator.output_dir", str(Path(output_dir) / "inference")
        OmegaConf.update(cfg, key, folder, force_add=True)
    evaluators = instantiate(evaluator)
    evaluators = [evaluators] if isinstance(evaluators, DatasetEvaluator) else list(evaluators)
    return [*evaluators, *(DetectionPictures(n, detections_file(output_dir, n)) for n in names)]
