"""The trainer, and a run of it from the command line."""

import logging
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, MetadataCatalog, build_detection_train_loader
from detectron2.engine import (
    AMPTrainer,
    DefaultTrainer,
    HookBase,
    SimpleTrainer,
    TrainerBase,
    default_setup,
)
from detectron2.engine.hooks import EvalHook, PeriodicCheckpointer, PeriodicWriter
from detectron2.evaluation import DatasetEvaluator, verify_results
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from detectron2.utils.logger import setup_logger
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn

from ..config import (
    base_architecture,
    box_voting_options,
    check_start_iter,
    config_key,
    ignore_regions_options,
    ohem_dense_options,
    ohem_options,
    ohem_rpn_options,
)
from ..data import (
    check_annotated,
    check_image_counts,
    check_learned,
    check_objects,
    check_semantic_labels,
    read_all_images,
    register_datasets,
    warn_of_classes_without_objects,
    warn_of_limit,
    warn_of_tested_on_training,
    warn_without_pairs,
)
from ..errors import InputError
from ..evaluation.evaluators import build_evaluator, check_evaluator_type
from ..evaluation.tta import TTA
from ..visualization import MinedPictures
from . import lazy_trainer, part_outputs, unread_options
from .checkpoint import WholeCheckpointer, classes_of_weights
from .checks import (
    check_batch_size,
    check_keypoint_sigmas,
    check_output_dir,
    check_seed,
    check_weights,
    warn_of_unused_weights,
)
from .choice import KEYS, warn_without_choice
from .config_file import find_config, load_config
from .data_checks import (
    check_datasets,
    check_num_classes,
    class_names,
    named_annotations,
    named_data_sets,
)
from .data_loader import ResumableLoader, shield_workers
from .device import usable_amp
from .distributed import wrap_ddp
from .divergence import watch_for_divergence
from .expected_results import check_expected_results, named_expectations
from .first_batch import check_first_batch
from .ignore_regions import IgnoreMapper, ignores_regions, use_ignore_rpn
from .interruption import ResumeHook
from .key_checks import check_keys, warn_of_long_warmup
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
from .part_outputs import check_outputs_once
from .processes import check_workers
from .proposal_files import check_proposal_files
from .repeated_settings import warn_of_repeated_settings
from .resumed_config import check_config_of_weights, config_text
from .schedule import settings_of, with_an_end
from .trial import name_first_step, try_augmentations, try_losses, try_model
from .unbroken_writers import unbroken
from .units import check_units
from .unread_keys import warn_of_unread_keys
from .unread_options import warn_of_unread_options
from .unread_settings import warn_of_unread_settings
from .unused_mining import warn_of_unused_mining
from .whole_files import whole_files

logger = logging.getLogger(__name__)

# Where the number of classes is, by Detectron2's architecture.
_NODES_OF_CLASSES = {
    "GeneralizedRCNN": "ROI_HEADS",
    "PanopticFPN": "ROI_HEADS",
    "RetinaNet": "RETINANET",
    "FCOS": "RETINANET",
}


class Trainer(DefaultTrainer):
    """
    Detectron2's `DefaultTrainer` with evaluators, test-time augmentation and pictures of the mined
    RoIs, which also trains on several processes without a GPU, and which goes on after an
    interruption as if there had been none.
    """

    def __init__(self, cfg: CfgNode) -> None:
        """
        Args:
            cfg: the config, with its data sets registered.

        Raises:
            InputError: it ends before it mines, or is to ignore regions, and has no heads that do.
        """
        for options in (ohem_options(cfg), ohem_rpn_options(cfg), ohem_dense_options(cfg)):
            check_start_iter(options, config_key("start_iter", options.NODE), cfg.SOLVER.MAX_ITER)
        # Not the constructor of DefaultTrainer, whose steps these are: it distributes on GPUs only.
        TrainerBase.__init__(self)
        text = config_text(cfg)
        if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
            setup_logger()
        cfg = use_ignore_rpn(self.auto_scale_workers(cfg, comm.get_world_size()))
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = ResumableLoader(self.build_train_loader(cfg))
        model = wrap_ddp(model, broadcast_buffers=False)
        step = AMPTrainer if cfg.SOLVER.AMP.ENABLED else SimpleTrainer
        self._trainer = step(model, data_loader, optimizer)
        scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.scheduler = with_an_end(
            scheduler, "SOLVER.LR_SCHEDULER_NAME", cfg.SOLVER.MAX_ITER, settings_of(cfg)
        )
        # By a weak reference, since the trainer holds its checkpointer.
        this = weakref.proxy(self)
        self.checkpointer = WholeCheckpointer(model, cfg.OUTPUT_DIR, trainer=this)
        self.checkpointer.class_names = class_names(cfg.DATASETS.TRAIN)
        self.checkpointer.config = text
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Iterable[list[dict]]:
        """See Detectron2's `DefaultTrainer.build_train_loader`."""
        mapper = IgnoreMapper(cfg, True) if ignores_regions(cfg) else None
        with named_annotations(), _named_proposals(cfg, "TRAIN"):
            return build_detection_train_loader(cfg, mapper=mapper)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Iterable[list[dict]]:
        """See Detectron2's `DefaultTrainer.build_test_loader`."""
        with named_annotations(), _named_proposals(cfg, "TEST"):
            return shield_workers(super().build_test_loader(cfg, dataset_name))

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """See `ohem_d2.evaluation.evaluators.build_evaluator`."""
        with named_annotations():
            return build_evaluator(dataset_name, cfg.OUTPUT_DIR, cfg.TEST.KEYPOINT_OKS_SIGMAS)

    @classmethod
    def test_with_tta(cls, cfg: CfgNode, model: nn.Module) -> dict:
        """
        Evaluate with Detectron2's test-time augmentation, ``TEST.AUG``.

        Returns:
            the results of `test`, under names that end with ``_TTA``.
        """
        logger.info("Evaluating with test-time augmentation")
        cfg = cfg.clone()
        cfg.defrost()
        cfg.OUTPUT_DIR = str(Path(cfg.OUTPUT_DIR) / "TTA")
        results = cls.test(cfg, TTA(cfg, model))
        return {f"{name}_TTA": value for name, value in results.items()}

    def _test_with_tta(self) -> dict:
        results = self.test_with_tta(self.cfg, self.model)
        # Beside those without, for TEST.EXPECTED_RESULTS.
        self._last_eval_results: dict = {**self._last_eval_results, **results}
        return results

    def build_writers(self) -> list[EventWriter]:
        """See Detectron2's `DefaultTrainer.build_writers`."""
        return unbroken(super().build_writers(), self.cfg.OUTPUT_DIR)

    def train(self) -> dict | None:
        """See Detectron2's `DefaultTrainer.train`."""
        with named_expectations(self.cfg, lambda: self._last_eval_results):
            return super().train()

    def build_hooks(self) -> list[HookBase]:
        """
        Add logs and pictures of mining, a last evaluation with test-time augmentation, and
        checkpoints to resume from bit by bit.
        """
        added: list[HookBase] = [MiningLogs()]
        if self.cfg.TEST.AUG.ENABLED:
            added.append(EvalHook(0, self._test_with_tta))
        if comm.is_main_process():
            file = Path(self.cfg.OUTPUT_DIR) / "pictures" / "mined.jpg"
            metadata = MetadataCatalog.get(self.cfg.DATASETS.TRAIN[0])
            how = self.cfg.INPUT.FORMAT, self.cfg.VIS_PERIOD
            added.append(MinedPictures(file, metadata, *how))
        hooks = [h for h in super().build_hooks() if not isinstance(h, PeriodicCheckpointer)]
        resume = ResumeHook(
            self.checkpointer,
            self.cfg.SOLVER.CHECKPOINT_PERIOD,
            eval_period=self.cfg.TEST.EVAL_PERIOD,
        )
        # As with Detectron2, before the evaluation; but on all processes.
        evaluation = next(h for h in hooks if isinstance(h, EvalHook))
        hooks.insert(hooks.index(evaluation), resume)
        # Writers come last, since they write what the others have logged. Only the main process has
        # any: by type, so that all processes evaluate in the same order and gather the same thing.
        return sorted([*hooks, *added], key=lambda hook: isinstance(hook, PeriodicWriter))


@contextmanager
def _named_proposals(cfg: CfgNode, split: str) -> Iterator[None]:
    """Say which files have no proposals for an image."""
    try:
        yield
    except KeyError as e:
        if not cfg.MODEL.LOAD_PROPOSALS:
            raise
        raise InputError(
            f"DATASETS.PROPOSAL_FILES_{split} is {cfg.DATASETS[f'PROPOSAL_FILES_{split}']}, where "
            f"the image {e} is missing: expected the file of each data set, in the order of "
            f"DATASETS.{split}"
        ) from e


def run(args) -> dict | None:
    """
    Train or evaluate, as the command line says. There is one training in ``OUTPUT_DIR`` at a time;
    evaluations may run beside it.

    Args:
        args: what Detectron2's `default_argument_parser` returns.

    Returns:
        the results of the evaluation, on the main process.

    Raises:
        InputError: the config, a data set or the weights are wrong or missing, or another training
            runs in ``OUTPUT_DIR``.
    """
    args.config_file = find_config(args.config_file)
    if args.config_file.endswith(".py"):
        return lazy_trainer.run(args)
    cfg = load_config(args.config_file, args.opts)
    check_output_dir("OUTPUT_DIR", cfg.OUTPUT_DIR)
    check_output_files("OUTPUT_DIR", cfg.OUTPUT_DIR, training=not args.eval_only)
    check_keys(cfg, training=not args.eval_only)
    check_workers("DATALOADER.NUM_WORKERS", cfg.DATALOADER.NUM_WORKERS)
    alone = nullcontext() if args.eval_only else alone_in("OUTPUT_DIR", cfg.OUTPUT_DIR)
    with alone, whole_files(), config_kept(cfg.OUTPUT_DIR, not args.eval_only) as begin:
        return _run(args, cfg, begin)


def _run(args, cfg: CfgNode, begin: Callable[[], None]) -> dict | None:
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="ohem_d2")
    if not args.eval_only:
        amp = cfg.SOLVER.AMP
        amp.ENABLED = usable_amp("SOLVER.AMP.ENABLED", amp.ENABLED, cfg.MODEL.DEVICE)
    check_units(cfg, training=not args.eval_only)
    warn_of_limits(cfg, training=not args.eval_only)
    warn_of_unread_keys(cfg, not args.eval_only, args.opts)
    warn_of_unread_settings(cfg, not args.eval_only, args.opts)
    warn_of_repeated_settings(args.opts)
    keys = {f"DATASETS.{x}": cfg.DATASETS[x] for x in ("TRAIN", "TEST")}
    with named_data_sets(keys), named_annotations():
        _check_datasets(args, cfg)
    if not args.eval_only:
        check_batch_size("SOLVER.IMS_PER_BATCH", cfg.SOLVER.IMS_PER_BATCH)
        warn_of_no_learning(cfg)
        warn_of_long_warmup(cfg)
        warn_of_unused_mining(cfg)
        tell_of_earlier_training("OUTPUT_DIR", cfg.OUTPUT_DIR, args.resume)
        mend_metrics(cfg.OUTPUT_DIR)
    check_seed("SEED", cfg.SEED)
    weights = ("MODEL.WEIGHTS", cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR)
    check_weights(*weights, resume=args.resume, training=not args.eval_only)
    if args.eval_only and args.resume and weights[0] in args.opts[::2]:
        warn_of_unused_weights(*weights)
    train = () if args.eval_only else cfg.DATASETS.TRAIN
    with named_data_sets(keys), named_annotations():
        read_all_images(train, cfg.DATASETS.TEST, cfg.DATASETS.get("UNREADABLE_IMAGES", "error"))
    run_of = cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR, args.resume
    check_config_of_weights(cfg, *run_of, training=not args.eval_only)
    cfg.freeze()
    default_setup(cfg, args)

    settings = (args.config_file, cfg, args.opts)
    with named_settings(*settings):
        _try_augmentations(cfg, ("TEST",) if args.eval_only else ("TRAIN", "TEST"))
    if args.eval_only:
        with named_settings(*settings):
            model = Trainer.build_model(cfg)
        checkpointer = WholeCheckpointer(model, save_dir=cfg.OUTPUT_DIR)
        checkpointer.class_names = class_names(cfg.DATASETS.TEST)
        checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
        warn_of_unread_options(
            model,
            unread_options.KEYS,
            box_voting_options(cfg),
            training=False,
            given=args.opts[::2],
        )
        try_model(model, named_settings(*settings, verb="evaluated"), checkpointer.loaded)
        check_outputs_once(model, part_outputs.KEYS)
        results = Trainer.test(cfg, model)
        if cfg.TEST.AUG.ENABLED:
            results.update(Trainer.test_with_tta(cfg, model))
        if comm.is_main_process():
            with named_expectations(cfg, lambda: results):
                verify_results(cfg, results)
        return results

    with named_settings(*settings):
        trainer = Trainer(cfg)
    check_space("OUTPUT_DIR", cfg.OUTPUT_DIR, trainer.model, trainer._trainer.optimizer)
    warn_without_choice(trainer.model, KEYS)
    warn_of_unread_options(
        trainer.model,
        unread_options.KEYS,
        box_voting_options(cfg),
        ignore_regions_options(cfg),
        images=trainer.cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size(),
        given=args.opts[::2],
    )
    if cfg.TEST.PRECISE_BN.ENABLED and not get_bn_modules(trainer.model):
        logger.warning(
            "TEST.PRECISE_BN.ENABLED is True, but no batch normalization of the model learns: it "
            "changes nothing"
        )
    check_outputs_once(trainer._trainer.model, part_outputs.KEYS)
    watch_for_divergence(trainer, "SOLVER.BASE_LR", cfg.SOLVER.BASE_LR)
    name_first_step(trainer, named_settings(*settings, verb="trained"))
    trainer.resume_or_load(resume=args.resume)
    if trainer.start_iter == 0:
        warn_of_frozen_layers(cfg, trainer.model)
        start = trainer.checkpointer.loaded if cfg.MODEL.WEIGHTS else ""
        try_losses(trainer, named_settings(*settings, verb="trained"), start)
        naming = named_settings(*settings, verb="trained")
        check_first_batch(trainer, trainer.max_iter, "what reads DATASETS.TRAIN", naming)
    begin()
    results = trainer.train()
    logger.info(f"Done: weights, logs and pictures are in {cfg.OUTPUT_DIR}")
    return results


def _check_needs(cfg: CfgNode, training: bool) -> None:
    """What the model would miss, or the evaluation after the training; limits that nobody sees."""
    architecture = cfg.MODEL.META_ARCHITECTURE
    train, test = cfg.DATASETS.TRAIN, cfg.DATASETS.TEST
    if training and architecture in ("PanopticFPN", "SemanticSegmentor"):
        check_semantic_labels(train, f"MODEL.META_ARCHITECTURE is {architecture!r}")
    if training:
        # Of those by address it was found out when they were registered.
        check_learned(cfg, *([n for n in x if "://" not in n] for x in (train, test)))
    has_roi_heads = _NODES_OF_CLASSES.get(base_architecture(cfg)) == "ROI_HEADS"
    if has_roi_heads and cfg.MODEL.ROI_BOX_HEAD.USE_FED_LOSS:  # also where nothing is trained
        number = cfg.MODEL.ROI_HEADS.NUM_CLASSES
        check_image_counts(train, "MODEL.ROI_BOX_HEAD.USE_FED_LOSS", number)
    for field, switch in (("segmentation", "MASK_ON"), ("keypoints", "KEYPOINT_ON")):
        if cfg.MODEL[switch]:
            key = f"MODEL.{switch}"
            check_annotated(test, field, f"{key} is True", f"{key} False", testing=True)
    if cfg.MODEL.KEYPOINT_ON:
        number = cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS
        sigmas = cfg.TEST.KEYPOINT_OKS_SIGMAS
        check_keypoint_sigmas("TEST.KEYPOINT_OKS_SIGMAS", sigmas, number, test)
        if training and cfg.INPUT.RANDOM_FLIP != "none":
            warn_without_pairs(train, "INPUT.RANDOM_FLIP 'none'")
    key = "MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE"
    least = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0
    check_objects(train if training else (), test, least, key)
    if training:
        warn_of_tested_on_training("DATASETS.TEST", test, "DATASETS.TRAIN", train)
        warn_of_classes_without_objects(train)
    warn_of_limit(test, "TEST.DETECTIONS_PER_IMAGE", cfg.TEST.DETECTIONS_PER_IMAGE)
    if _NODES_OF_CLASSES.get(base_architecture(cfg)) == "ROI_HEADS":
        if cfg.MODEL.LOAD_PROPOSALS:
            key = "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST"
            warn_of_limit(test, key, cfg.DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST)
        else:
            limit = cfg.MODEL.RPN.POST_NMS_TOPK_TEST
            warn_of_limit(test, "MODEL.RPN.POST_NMS_TOPK_TEST", limit)


def _try_augmentations(cfg: CfgNode, splits: Sequence[str]) -> None:
    for split in splits:
        keys = ", ".join(
            f"INPUT.{x}_SIZE_{split} {cfg.INPUT[f'{x}_SIZE_{split}']}" for x in ("MIN", "MAX")
        )
        crop = cfg.INPUT.CROP
        if split == "TRAIN" and crop.ENABLED:
            keys = f"{keys}, INPUT.CROP.SIZE {crop.SIZE} ({crop.TYPE})"
        augmentations = DatasetMapper.from_config(cfg, split == "TRAIN")["augmentations"]
        try_augmentations(augmentations, keys)


def _check_datasets(args, cfg: CfgNode) -> None:
    """Register those of the config, and make sure that they can be read."""
    run_of = cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR, args.resume
    register_datasets(cfg, classes_of_weights(*run_of, training=not args.eval_only))
    splits = ("TEST",) if args.eval_only else ("TRAIN", "TEST")
    if not cfg.DATASETS[splits[0]]:
        raise InputError(f"DATASETS.{splits[0]} is empty, expected at least one data set")
    for split in splits:
        check_datasets(*cfg.DATASETS[split])
        if cfg.MODEL.LOAD_PROPOSALS:
            key = f"PROPOSAL_FILES_{split}"
            check_proposal_files(f"DATASETS.{key}", cfg.DATASETS[key], cfg.DATASETS[split])
    for name in cfg.DATASETS.TEST:
        check_evaluator_type(name)
    _check_needs(cfg, training=not args.eval_only)
    check_expected_results(cfg)
    if (node := _NODES_OF_CLASSES.get(base_architecture(cfg))) is not None:
        names = [name for split in splits for name in cfg.DATASETS[split]]
        check_num_classes(f"MODEL.{node}.NUM_CLASSES", cfg.MODEL[node].NUM_CLASSES, names)
