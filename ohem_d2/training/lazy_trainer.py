"""Training and evaluation of Detectron2's Python configs (LazyConfig)."""

import ast
import logging
import re
import traceback
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetMapper, MetadataCatalog
from detectron2.data.detection_utils import create_keypoint_hflip_indices
from detectron2.engine import (
    AMPTrainer,
    HookBase,
    SimpleTrainer,
    default_setup,
    default_writers,
    hooks,
)
from detectron2.evaluation import (
    COCOEvaluator,
    DatasetEvaluator,
    inference_on_dataset,
    print_csv_format,
)
from detectron2.modeling import PanopticFPN, SemanticSegmentor
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from ..config import check_start_iter
from ..data import (
    ClassesOfWeights,
    by_address,
    check_annotated,
    check_annotated_keypoints,
    check_mask_format,
    check_objects,
    check_semantic_labels,
    read_all_images,
    register_by_name,
    warn_of_limit,
    warn_without_pairs,
)
from ..errors import InputError
from ..evaluation.evaluators import build_evaluator
from ..modeling.head_checks import check_classes_of_heads
from ..modeling.mixin import OHEMMixin
from ..visualization import DetectionPictures, MinedPictures, detections_file
from .checkpoint import WholeCheckpointer, classes_of_weights
from .checks import (
    check_batch_size,
    check_keypoint_sigmas,
    check_output_dir,
    check_weights,
)
from .data_checks import (
    check_datasets,
    check_num_classes,
    class_names,
    named_annotations,
    named_data_sets,
)
from .data_loader import ResumableLoader, shield_workers
from .device import usable_device
from .distributed import wrap_ddp
from .ignore_regions import use_ignore_regions_lazily
from .interruption import ResumeHook
from .key_checks import all_keys, check_lazy_keys, lazy_interpolations
from .lazy_targets import check_targets, make, target_of
from .mining_logs import MiningLogs
from .named_settings import named_settings
from .nearest_keys import hint
from .output_folder import alone_in, check_output_files, check_space
from .proposal_files import check_proposal_files
from .trial import name_first_step, try_augmentations, try_model

logger = logging.getLogger(__name__)

_MISSING = object()
_MOST_DETECTIONS = 100  # of an image, of Detectron2's box predictors by default
# The project's nodes in a YAML config, and where they are in a Python config.
_NODES_OF_YAML = {
    "MODEL.ROI_HEADS.OHEM": "model.roi_heads.ohem",
    "TEST.BOX_VOTING": "model.roi_heads.box_voting",
    "INPUT.IGNORE_REGIONS": "train.ignore_regions",
}
_NEEDED_TO_EVALUATE = (
    "model",
    "dataloader.test",
    "train.device",
    "train.init_checkpoint",
    "train.output_dir",
)
_NEEDED_TO_TRAIN = (
    "dataloader.train",
    "lr_multiplier",
    "optimizer",
    "train.amp.enabled",
    "train.checkpointer",
    "train.ddp",
    "train.eval_period",
    "train.log_period",
    "train.max_iter",
)
_NEEDED = (*_NEEDED_TO_EVALUATE, *_NEEDED_TO_TRAIN)


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
    with alone, keys_of_python_configs():
        return _run(args, cfg, output_dir)


def _run(args: Namespace, cfg: DictConfig, output_dir: str) -> dict | None:
    setup_logger(output_dir, distributed_rank=comm.get_rank(), name="ohem_d2")
    keys = {_key(split): _names(cfg, split) for split in ("train", "test")}
    with named_data_sets(keys), named_annotations():
        run_of = cfg.train.init_checkpoint, output_dir, args.resume
        register_lazy_datasets(cfg, classes_of_weights(*run_of, training=not args.eval_only))
        train = () if args.eval_only else _names(cfg, "train")
        names = [*train, *_names(cfg, "test")]
        check_datasets(*names)
        for split in ("test",) if args.eval_only else ("train", "test"):
            key = f"dataloader.{split}.dataset.proposal_files"
            if (files := OmegaConf.select(cfg, key)) is not None:
                check_proposal_files(key, files, _names(cfg, split), "it")
        num_classes = OmegaConf.select(cfg, "model.roi_heads.num_classes")
        if num_classes is not None:
            check_num_classes("model.roi_heads.num_classes", num_classes, names)
    if not args.eval_only:
        batch_size = OmegaConf.select(cfg, "dataloader.train.total_batch_size")
        if batch_size is not None:
            check_batch_size("dataloader.train.total_batch_size", batch_size)
    _check_needs(cfg, train)
    weights = ("train.init_checkpoint", cfg.train.init_checkpoint, output_dir)
    check_weights(*weights, resume=args.resume, training=not args.eval_only)
    with named_data_sets(keys), named_annotations():
        read = {x: _names_of_images(cfg, x) for x in ("train", "test")}
        read_all_images(() if args.eval_only else read["train"], read["test"], _unreadable(cfg))
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
    if args.eval_only:
        checkpointer = WholeCheckpointer(model, output_dir)
        checkpointer.class_names = class_names(_names(cfg, "test"))
        checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=args.resume)
        try_model(model, named_settings(*settings, verb="evaluated"))
        return evaluate(cfg, model)

    with named_settings(*settings):
        _build_evaluators(cfg)  # which fail before the training rather than after it
    if isinstance(heads := getattr(model, "roi_heads", None), OHEMMixin):
        check_start_iter(heads.ohem, "model.roi_heads.ohem.start_iter", cfg.train.max_iter)
    with named_settings(*settings):
        trainer, checkpointer = build_trainer(cfg, model)
    check_space("train.output_dir", output_dir, model)
    name_first_step(trainer, named_settings(*settings, verb="trained"))
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=args.resume)
    resumed = args.resume and checkpointer.has_checkpoint()
    trainer.train(trainer.iter + 1 if resumed else 0, cfg.train.max_iter)
    logger.info(f"Done: weights, logs and pictures are in {output_dir}")
    return None


def load_lazy_config(
    config_file: str, opts: Sequence[str] = (), training: bool = True
) -> DictConfig:
    """
    Load a Python config. It is a program, and is run.

    Args:
        config_file: a path.
        opts: ``key=value`` for each key to change, and ``+key=value`` for one to add.
        training: whether it is to be trained, not only evaluated.

    Returns:
        the config. Where there is no GPU, ``train.device`` is "cpu".

    Raises:
        InputError: the file does not run, or lacks something, or a key to change is not there.
    """
    with _refused(config_file):
        with keys_of_python_configs():
            cfg = _run_file(config_file)
        _override(cfg, config_file, list(opts))
        _check_interpolations(cfg, config_file)
        if isinstance(device := OmegaConf.select(cfg, "train.device"), str):
            cfg.train.device = usable_device("train.device", device)
        check_lazy_keys(cfg, training)
        _check_complete(cfg, config_file, training)
        check_targets(cfg, _made(cfg, training))
        if training and cfg.train.device == "cpu" and cfg.train.amp.enabled:
            logger.warning("train.amp.enabled is turned off: Detectron2 needs a GPU for it")
            cfg.train.amp.enabled = False
        return cfg


@contextmanager
def keys_of_python_configs() -> Iterator[None]:
    """
    Name settings as Python configs do in what is wrong with one.

    Raises:
        InputError: what was raised, where it was named as in a YAML config.
    """
    try:
        yield
    except InputError as e:
        pattern = rf"({'|'.join(map(re.escape, _NODES_OF_YAML))})((?:\.[A-Z_]+)?)"
        text = re.sub(pattern, lambda m: _NODES_OF_YAML[m[1]] + m[2].lower(), str(e))
        if text == str(e):
            raise
        raise InputError(text) from e


def _made(cfg: DictConfig, training: bool) -> list[str]:
    """The parts of a config that are made of it."""
    parts = ["model", "dataloader.test"]
    if not any("://" in name for name in _names(cfg, "test")):
        parts.append("dataloader.evaluator")  # else that of the address is taken
    return [*parts, "dataloader.train", "optimizer", "lr_multiplier"] if training else parts


@contextmanager
def _refused(config_file: str) -> Iterator[None]:
    """Say what OmegaConf refuses in one line, wherever it does."""
    try:
        yield
    except OmegaConfBaseException as e:
        key = f"{e.full_key} " if e.full_key else ""
        raise InputError(f"{key}in {config_file} cannot be used: {_first_line(e)}") from e


def _first_line(e: Exception) -> str:
    """What OmegaConf says, without the state of its objects that it adds."""
    return str(e).partition("\n")[0]


def _run_file(config_file: str) -> DictConfig:
    try:
        return LazyConfig.load(config_file)
    except KeyboardInterrupt:  # which is Ctrl-C
        raise
    except BaseException as e:  # it may raise anything, and even end the program
        places = [f"line {x.lineno}: " for x in traceback.extract_tb(e.__traceback__)
                  if x.filename == config_file]  # fmt: skip
        error = e.__cause__ if isinstance(e, SyntaxError) else e
        if isinstance(e, SystemExit):
            error = SystemExit(f"{e}, expected a config that does not end the program")
        raise InputError(
            f"{config_file} is no valid config: {''.join(places[-1:])}"
            f"{type(error).__name__}: {error}"
        ) from e


def _override(cfg: DictConfig, config_file: str, opts: list[str]) -> None:
    for i, opt in enumerate(opts):
        key, is_pair, value = opt.partition("=")
        if opt.startswith("--"):
            raise InputError(f"{opt} comes after the settings, expected it before them")
        if not is_pair or not all(key.lstrip("+~").split(".")):
            raise InputError(f"in the settings {opt!r}: expected key=value, as for Python configs")
        if "[" in key:  # which OmegaConf knows, but hydra does not
            instead = re.sub(r"\[(-?\w*)\]", r".\1", key)
            raise InputError(f"in the settings {opt!r}: expected {instead}, without brackets")
        _check_index(cfg, key.lstrip("+~"), opt)
        if not key.startswith("+") and OmegaConf.select(cfg, key, default=_MISSING) is _MISSING:
            root = key.partition(".")[0]
            if root not in cfg and any(x.partition(".")[0] == root for x in _NEEDED):
                raise _lacking(config_file, root)
            raise InputError(
                f"in the settings {opt!r}: there is no {key} in {config_file}"
                f"{hint(key, all_keys(cfg))}. To add it, write +{opt}"
            )
        if re.match(r"\w+://", value):
            opt = f"{key}={value!r}"  # which hydra does not take without quotes
        try:
            is_sweep = OverridesParser.create().parse_override(opt).is_sweep_override()
            if not is_sweep:
                LazyConfig.apply_overrides(cfg, [opt])
        except Exception as e:  # hydra's, OmegaConf's and Detectron2's have no common base
            raise InputError(f"in the settings {opts[i]!r}: {e}") from None
        if is_sweep:  # as hydra takes a comma, range() and the like
            raise InputError(
                f"in the settings {opts[i]!r}: {key} is several values, expected one, such as "
                "0.02, or a list in brackets, such as [1,2]"
            )


def _check_index(cfg: DictConfig, key: str, opt: str) -> None:
    """Make sure that a list has the entry that a setting is for."""
    names = key.split(".")
    for i, name in enumerate(names):
        above = ".".join(names[:i])
        node = OmegaConf.select(cfg, above) if above else cfg
        if OmegaConf.is_list(node) and name not in map(str, range(len(node))):
            raise InputError(
                f"in the settings {opt!r}: {above} has {len(node)} entries, expected 0 to "
                f"{len(node) - 1} in the place of {name}"
            )


def _check_interpolations(cfg: DictConfig, config_file: str) -> None:
    """Make sure that what refers to another key finds it, before anything looks at it."""
    # Some nodes have a second name, in which they come again: the shortest is that which is used.
    for key in sorted(lazy_interpolations(cfg), key=lambda key: key.count(".")):
        try:
            OmegaConf.select(cfg, key)
        except Exception as e:  # a resolver of the user's own may raise anything
            raise InputError(f"{key} in {config_file} cannot be read: {_first_line(e)}") from e


def _check_complete(cfg: DictConfig, config_file: str, training: bool) -> None:
    for key in (*_NEEDED_TO_EVALUATE, *(_NEEDED_TO_TRAIN if training else ())):
        if OmegaConf.select(cfg, key) is None:
            if OmegaConf.select(cfg, key, default=_MISSING) is None:
                raise InputError(f"{key} is null, expected a value: {config_file} needs one")
            root = key.partition(".")[0]
            raise _lacking(config_file, key if root in cfg else root)


def _lacking(config_file: str, key: str) -> InputError:
    expected = "expected what the Python configs of Detectron2's model zoo have"
    if key in _assigned(config_file):  # Detectron2 leaves out what is no node
        return InputError(f"{key} in {config_file} is neither a dict nor a LazyCall, {expected}")
    return InputError(f"there is no {key} in {config_file}, {expected}")


def _assigned(config_file: str) -> set[str]:
    """The names that a Python file gives to something, or imports."""
    nodes = list(ast.walk(ast.parse(Path(config_file).read_bytes())))
    names = [x for x in nodes if isinstance(x, ast.Name)]
    imported = {x.asname or x.name for x in nodes if isinstance(x, ast.alias)}
    assigned = {x.id for x in names if isinstance(x.ctx, ast.Store)}
    return (assigned | imported) - {x.id for x in names if isinstance(x.ctx, ast.Del)}


def register_lazy_datasets(cfg: DictConfig, of_weights: ClassesOfWeights | None = None) -> None:
    """
    Register the data sets that a Python config names in ``dataset.names`` of ``dataloader.train``
    and ``dataloader.test``: those by address, and those that come with the project. Set
    ``num_classes`` and ``num_keypoints`` of ``model.roi_heads`` from those by address.

    Raises:
        InputError: see `ohem_d2.data.register_by_name`.
    """
    train, test = _names(cfg, "train"), _names(cfg, "test")
    registered = register_by_name(train, test, _unreadable(cfg), of_weights)
    if registered is None:
        return
    if "roi_heads" not in cfg.model:
        raise InputError("there is no model.roi_heads, expected a two-stage model")
    if len(test) > 1:
        raise InputError(
            f"dataloader.test.dataset.names is {list(test)}, expected a single data set where one "
            "is given by address: a Python config has one evaluator"
        )
    heads = cfg.model.roi_heads
    _replace_num_classes(heads, heads.num_classes, len(registered.classes))
    if registered.num_keypoints is not None and "keypoint_head" in heads:
        heads.keypoint_head.num_keypoints = registered.num_keypoints
    _check_learned(cfg, by_address(train), by_address(test))
    if _head_key(cfg, "keypoint") and by_address(train) and "mapper" in cfg.dataloader.train:
        # The config has those of the data set that it was written for.
        indices = create_keypoint_hflip_indices(train)
        OmegaConf.update(
            cfg, "dataloader.train.mapper.keypoint_hflip_indices", indices, force_add=True
        )


def _check_learned(cfg: DictConfig, train: Sequence[str], test: Sequence[str]) -> None:
    """Masks and keypoints that the model learns; ``test``: whose keypoints have to be the same."""
    if key := _head_key(cfg, "mask"):
        check_annotated(train, "segmentation", f"{key} is set", f"{key}=null")
        mask_format = "dataloader.train.mapper.instance_mask_format"
        if OmegaConf.select(cfg, mask_format, default="polygon") == "polygon":
            is_set = OmegaConf.select(cfg, mask_format) is not None
            check_mask_format(train, mask_format, f"{'' if is_set else '+'}{mask_format}=bitmask")
    if key := _head_key(cfg, "keypoint"):
        check_annotated_keypoints(train, test, f"{key} is set", f"{key}=null")
    key = "dataloader.train.mapper.recompute_boxes"
    if OmegaConf.select(cfg, key):
        check_annotated(train, "segmentation", f"{key} is true", f"{key}=false")


def _head_key(cfg: DictConfig, name: str) -> str | None:
    """What turns the head of masks or keypoints off, if there is one and it is on."""
    heads = OmegaConf.select(cfg, "model.roi_heads") or {}
    # C4 heads have none of the first.
    key = next((k for k in (f"{name}_in_features", f"{name}_head") if k in heads), None)
    return f"model.roi_heads.{key}" if key is not None and heads[key] is not None else None


def _unreadable(cfg: DictConfig) -> str:
    return OmegaConf.select(cfg, "dataloader.unreadable_images", default="error")


def _sigmas(cfg: DictConfig) -> tuple[float, ...]:
    return tuple(OmegaConf.select(cfg, "dataloader.evaluator.kpt_oks_sigmas") or ())


def _check_needs(cfg: DictConfig, train: Sequence[str]) -> None:
    """What the evaluation would miss after the training, and limits that nobody sees."""
    test = _names(cfg, "test")
    # What another mapper may add is not known. Of those by address it was found out before.
    learned = [x for x in train if x in _names_of_images(cfg, "train") and "://" not in x]
    _check_learned(cfg, learned, ())
    for name, option in (("mask", "use_instance_mask"), ("keypoint", "use_keypoint")):
        mapper = "dataloader.train.mapper"
        is_used = not _names_of_images(cfg, "train") or OmegaConf.select(cfg, f"{mapper}.{option}")
        if train and not is_used and (key := _head_key(cfg, name)):
            raise InputError(f"{mapper}.{option} is not true, expected true, since {key} is set")
    if (target := target_of(cfg.model)) in (PanopticFPN, SemanticSegmentor):
        names = [x for x in train if x in _names_of_images(cfg, "train")]
        check_semantic_labels(names, f"model is a {target.__name__}")
    by_coco = _is_by_coco(cfg) and cfg.dataloader.evaluator.get("tasks") is None
    for name, field in (("mask", "segmentation"), ("keypoint", "keypoints")):
        if key := _head_key(cfg, name):
            tested = test if by_coco else by_address(test)
            check_annotated(tested, field, f"{key} is set", f"{key}=null", testing=True)
    number = OmegaConf.select(cfg, "model.roi_heads.keypoint_head.num_keypoints")
    if number is not None and _head_key(cfg, "keypoint"):
        key = "dataloader.evaluator.kpt_oks_sigmas"
        # Of those by address the evaluator is built from these.
        check_keypoint_sigmas(key, _sigmas(cfg), number, by_address(test))
        augmentations = OmegaConf.select(cfg, "dataloader.train.mapper.augmentations") or ()
        if any("RandomFlip" in str(x.get("_target_")) for x in augmentations):
            warn_without_pairs(train, "no RandomFlip in dataloader.train.mapper.augmentations")
    for key in ("model.roi_heads.box_predictor", "model.roi_heads.box_predictors[0]"):
        if (predictor := OmegaConf.select(cfg, key)) is not None:
            limit = predictor.get("test_topk_per_image", _MOST_DETECTIONS)
            warn_of_limit(test, f"{key}.test_topk_per_image", limit)
    key = "model.proposal_generator.post_nms_topk"
    if OmegaConf.is_list(limits := OmegaConf.select(cfg, key)) and len(limits) == 2:
        warn_of_limit(test, f"{key}[1]", limits[1])
    check_objects(train, test)


def _replace_num_classes(node: DictConfig | ListConfig, old: int, new: int) -> None:
    """In the heads and all their parts, but for those of another number, such as 1 for masks."""
    keys = list(node) if isinstance(node, DictConfig) else range(len(node))
    for key in keys:
        if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
            continue
        if OmegaConf.is_config(node[key]):
            _replace_num_classes(node[key], old, new)
        elif key == "num_classes" and node[key] == old:
            node[key] = new


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
    model = wrap_ddp(model, **cfg.train.ddp)
    trainer_class = AMPTrainer if cfg.train.amp.enabled else SimpleTrainer
    with named_annotations():
        loader = ResumableLoader(instantiate(cfg.dataloader.train))
    trainer = trainer_class(model, loader, optimizer)
    trainer.max_iter = cfg.train.max_iter
    output_dir = cfg.train.output_dir
    checkpointer = WholeCheckpointer(model, output_dir, trainer=trainer)
    checkpointer.class_names = class_names(_names(cfg, "train"))

    on_all: list[HookBase] = [
        hooks.IterationTimer(),
        hooks.LRScheduler(scheduler=make(cfg, "lr_multiplier")),
        MiningLogs(cfg.train.log_period),
        ResumeHook(checkpointer, **cfg.train.checkpointer, eval_period=cfg.train.eval_period),
    ]
    on_main = []
    if comm.is_main_process():
        writers = default_writers(output_dir, cfg.train.max_iter)
        on_main.append(hooks.PeriodicWriter(writers, period=cfg.train.log_period))
        if _names(cfg, "train"):
            file = Path(output_dir) / "pictures" / "mined.jpg"
            metadata = MetadataCatalog.get(_names(cfg, "train")[0])
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
        evaluators = _build_evaluators(cfg)
    if not evaluators:
        logger.warning("Nothing is evaluated: the config has no dataloader.evaluator")
        return None
    with named_annotations():
        loader = shield_workers(instantiate(cfg.dataloader.test))
    results = inference_on_dataset(model, loader, evaluators)
    if comm.is_main_process():
        print_csv_format(results)
    return results


def _build_evaluators(cfg: DictConfig) -> list[DatasetEvaluator]:
    """What a data set's address says, or what the config says; and pictures."""
    names, output_dir = _names(cfg, "test"), cfg.train.output_dir
    if names and "://" in names[0]:
        return [build_evaluator(names[0], output_dir, _sigmas(cfg))]
    if "evaluator" not in cfg.dataloader:
        return []
    evaluator = cfg.dataloader.evaluator
    needs_folder = any(MetadataCatalog.get(n).get("json_file") is None for n in names)
    if needs_folder and _is_by_coco(cfg) and evaluator.get("output_dir") is None:
        # In which it writes the annotations as COCO's JSON.
        key, folder = "dataloader.evaluator.output_dir", str(Path(output_dir) / "inference")
        OmegaConf.update(cfg, key, folder, force_add=True)
    evaluators = instantiate(evaluator)
    evaluators = [evaluators] if isinstance(evaluators, DatasetEvaluator) else list(evaluators)
    return [*evaluators, *(DetectionPictures(n, detections_file(output_dir, n)) for n in names)]


def _is_by_coco(cfg: DictConfig) -> bool:
    return target_of(OmegaConf.select(cfg, "dataloader.evaluator")) is COCOEvaluator


def _key(split: str) -> str:
    return f"dataloader.{split}.dataset.names"


def _names(cfg: DictConfig, split: str) -> tuple[str, ...]:
    """The data sets of ``dataloader.train`` or ``dataloader.test``, if they are given by name."""
    names = OmegaConf.select(cfg, _key(split)) or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _names_of_images(cfg: DictConfig, split: str) -> list[str]:
    """Those of them whose images Detectron2's own mapper reads, or this project has registered."""
    is_plain = target_of(OmegaConf.select(cfg, f"dataloader.{split}.mapper")) is DatasetMapper
    return [name for name in _names(cfg, split) if is_plain or "://" in name]
