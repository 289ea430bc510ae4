"""
A report of what a trained model finds hard in a data set.

RoIs are mined by the code that training mines with; each object and each look-alike that the model
gets wrong is one example. Where model and labels disagree, the label may be wrong as well: these
are ranked by what the label costs the model.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from detectron2.config import CfgNode, instantiate
from detectron2.data import MetadataCatalog, get_detection_dataset_dicts
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN, build_model
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf
from torch import nn
from tqdm import tqdm

from ..config import box_voting_options
from ..data import plain_path, register_datasets
from ..errors import InputError
from ..modeling.lazy import COUNTERPARTS, with_ohem
from ..training import unread_options
from ..training.checkpoint import classes_of_weights
from ..training.checks import check_output_dir, check_weights
from ..training.config_file import find_config, load_config
from ..training.data_checks import check_datasets, check_num_classes, class_names, named_data_sets
from ..training.key_checks import check_keys
from ..training.lazy_config import keys_of_python_configs, load_lazy_config
from ..training.lazy_data import register_lazy_datasets
from ..training.named_settings import named_settings
from ..training.output_folder import alone_in, check_not_in_the_way
from ..training.proposal_files import check_number_of_proposal_files, check_proposal_files
from ..training.repeated_settings import warn_of_repeated_settings
from ..training.resumed_config import warn_of_other_config
from ..training.trial import try_model
from ..training.unread_options import warn_of_unread_options
from ..training.weights import SafeCheckpointer
from .coco_form import as_coco
from .comparison import as_comparison
from .earlier import EarlierReport, check_comparable, follow_images, read_earlier
from .hard_examples import Findings, build_mapper, check_model, look_at
from .label_errors import by_cleanlab, by_loss
from .model_errors import ModelErrors
from .own_page import check_own_page
from .page import write_list, write_page

logger = logging.getLogger(__name__)

RANKINGS = {"loss": by_loss, "cleanlab": by_cleanlab}

_COMPARISON = "model_comparison"
_FILES = (
    "index.html",
    "hard_examples.json",
    "label_errors.json",
    "model_errors.json",
    f"{_COMPARISON}.json",
    ".lock",
)

# While images are looked at, the lists are written every so many seconds, but not for more than
# this share of the time.
_PERIOD, _SHARE = 30.0, 0.1


def write_report(
    config_file: str,
    dataset: str,
    output: Path,
    opts: Sequence[str] = (),
    max_images: int | None = None,
    ranking: str = "loss",
    compare: Path | None = None,
) -> None:
    """
    Look at the images, and write what was found; also if that is interrupted, or fails.

    ``index.html`` shows it, the worst first; ``hard_examples.json``, ``label_errors.json`` and
    ``model_errors.json`` beside it have it in COCO's format. The lists are also written now and
    then on the way, for when the process is killed. Each file is written whole or not at all, and
    files of others are left alone.

    Args:
        config_file: that of the training: a path or a name.
        dataset: a registered name, or an address.
        output: the folder to write.
        opts: settings that override those of the config.
        max_images: how many images to look at, the first ones; None for all.
        ranking: how label errors are found, one of `RANKINGS`.
        compare: the folder of an earlier report on the same images, to compare its model with this
            one: on the page, and in ``model_comparison.json``.

    Raises:
        InputError: the config, the data set or the weights are wrong or missing, or the folder
            cannot be written, or another process writes to it, or the earlier report is not one
            that can be compared.
        KeyboardInterrupt: it was interrupted, and what was found is written.
    """
    if max_images is not None and max_images < 1:
        raise InputError(f"--max-images is {max_images}, expected 1 or more")
    rank = RANKINGS[ranking]
    rank([])  # if it is not installed, it says so now
    check_output_dir("--output", output)
    check_own_page(output, "label_errors.json", "report")
    check_not_in_the_way("--output", output, ("crops",), _FILES)
    earlier = None
    if compare is not None:
        if compare.resolve() == output.resolve():
            raise InputError(
                f"--compare is {str(compare)!r}, the folder of --output, expected another: this "
                "report would take the place of the earlier one"
            )
        earlier = read_earlier(compare)
    config_file = find_config(config_file)
    load = load_python_config if config_file.endswith(".py") else load_yaml_config
    cfg, model, proposal_files = load(config_file, opts, dataset)
    records = load_records(dataset, proposal_files)[:max_images]
    if earlier is not None:
        names = MetadataCatalog.get(dataset).thing_classes
        earlier = follow_images(earlier, records, names)
        check_comparable(earlier, records, names, build_mapper(cfg))
    with alone_in("--output", output):
        _look_at_all(cfg, model, records, output, dataset, rank, earlier)


def _look_at_all(
    cfg: CfgNode | DictConfig,
    model: nn.Module,
    records: Sequence[dict],
    output: Path,
    dataset: str,
    rank: Callable,
    earlier: EarlierReport | None,
) -> None:
    seen: list[tuple[dict, Findings]] = []
    of_model = ModelErrors(dataset)
    due = time.monotonic() + _PERIOD
    try:
        mapper = build_mapper(cfg)
        for record in tqdm(records, desc="mining", unit="image"):
            try:
                x = mapper(record)
            except Exception as e:  # what reads images raises anything
                logger.warning(f"{plain_path(record['file_name'])} is left out: {e}")
                continue
            size = {"height": x["height"], "width": x["width"]}  # which a record may lack
            seen.append(({**record, **size}, look_at(model, x)))
            if (start := time.monotonic()) >= due:
                write_lists(output, dataset, seen, of_model, rank)
                now = time.monotonic()
                due = now + max(_PERIOD, (now - start) / _SHARE)
    except FloatingPointError as e:
        raise InputError(
            f"{record['file_name']}: {e} The weights are those of a training that diverged, "
            "expected some that detect objects"
        ) from e
    except KeyboardInterrupt:
        logger.warning(f"Interrupted after {len(seen)} images, which are kept")
        raise
    finally:
        if seen:
            write(output, dataset, seen, of_model, rank, earlier)
    if not seen:
        raise InputError(f"no image of {dataset} was looked at, expected one or more")


def write(
    output: Path,
    dataset: str,
    seen: Sequence[tuple[dict, Findings]],
    of_model: ModelErrors,
    rank: Callable,
    earlier: EarlierReport | None = None,
) -> None:
    """
    Rank what was found in the images that were looked at, compare it with an earlier report, if
    there is one, and write it. The arguments are those of `write_lists`.

    Raises:
        InputError: the folder cannot be written.
    """
    lists = write_lists(output, dataset, seen, of_model, rank)
    comparison = None
    if earlier is not None:
        records, findings = zip(*seen)
        comparison = as_comparison(earlier, records, findings, dataset, lists[2])
    with _named_output(output):
        if comparison is not None:
            write_list(output, _COMPARISON, comparison)
        else:  # one of an earlier report in this folder goes with its page
            (output / f"{_COMPARISON}.json").unlink(missing_ok=True)
        write_page(output, dataset, *lists, comparison)
    hard, errors = (len(coco["annotations"]) for coco in lists[:2])
    logger.info(
        f"Wrote {hard} hard examples and {errors} suspected label errors of {len(seen)} images: "
        f"open {output / 'index.html'}"
    )
    info = lists[2]["info"]
    each = ", ".join(f"{error} {cost:.1f}" for error, cost in info["costs"].items())
    logger.info(f"AP50 is {info['ap50']:.1f}. What each error type costs: {each}")
    if comparison is not None:
        logger.info(_in_words(comparison["info"]))


def _in_words(of: dict) -> str:
    """What a comparison comes to."""
    costs = ", ".join(f"{error} {x:+.1f}" for error, x in of["difference"]["costs"].items())
    objects, wrong = of["objects"], of["false_positives"]
    text = (
        f"AP50 of {of['folder']} is {of['earlier']['ap50']:.1f}: now it is "
        f"{of['difference']['ap50']:+.1f}, and what each error type costs {costs}. Only now "
        f"{objects['only_now']} objects are found, and {objects['only_earlier']} only there; "
        f"{wrong['only_now']} false positives are new, and {wrong['only_earlier']} are gone"
    )
    if of["labels_new"] or of["labels_gone"]:
        text += (
            f". Since then {of['labels_new']} labels are new and {of['labels_gone']} are gone: "
            "both models are judged by those of now"
        )
    return text


def write_lists(
    output: Path,
    dataset: str,
    seen: Sequence[tuple[dict, Findings]],
    of_model: ModelErrors,
    rank: Callable,
) -> tuple[dict, dict, dict]:
    """
    Write the lists without the page.

    Args:
        output: the folder.
        dataset: the registered data set.
        seen: the record of each image that was looked at, and what was found in it.
        of_model: the errors of the first ones of these, or of none; those of the others are added.
        rank: how label errors are found, a value of `RANKINGS`.

    Returns:
        what `as_coco` returned of the first two, and what `of_model` has.

    Raises:
        InputError: the folder cannot be written.
    """
    records, findings = zip(*seen)
    hard = [(i, example) for i, f in enumerate(findings) for example in f.hard_examples]
    hard.sort(key=lambda x: -x[1].loss)
    with _named_output(output):
        coco = as_coco(records, hard, dataset, "hard_examples")
        write_list(output, "hard_examples", coco)
        errors = as_coco(records, rank(findings), dataset, "label_errors")
        write_list(output, "label_errors", errors)
        for x in seen[len(of_model) :]:
            of_model.add(*x)
        result = of_model.result()
        write_list(output, "model_errors", result)
    return coco, errors, result


@contextmanager
def _named_output(output: Path) -> Iterator[None]:
    """Say where there is no space, for example."""
    try:
        yield
    except OSError as e:
        raise InputError(
            f"--output {output} cannot be written ({e.strerror}). What was there before is kept"
        ) from e


def find_proposals(cfg: CfgNode, dataset: str) -> tuple[str, list[str] | None]:
    """
    The file of precomputed proposals of a data set, if the model needs one, behind the key that
    names it.

    Raises:
        InputError: the config does not name it.
    """
    if not cfg.MODEL.LOAD_PROPOSALS:
        return "", None
    for split in ("TEST", "TRAIN"):
        names, files = cfg.DATASETS[split], cfg.DATASETS[f"PROPOSAL_FILES_{split}"]
        if dataset in names:
            key = f"DATASETS.PROPOSAL_FILES_{split}"
            check_number_of_proposal_files(key, files, names)
            return key, [files[names.index(dataset)]]
    raise InputError(
        f"--dataset is {dataset}, expected one of DATASETS.TEST or DATASETS.TRAIN, which have a "
        "file of proposals, since MODEL.LOAD_PROPOSALS is True"
    )


def load_records(dataset: str, proposal_files: list[str] | None) -> list[dict]:
    """
    The images of a data set, with their proposals.

    Raises:
        InputError: there are no annotations, or no proposals for an image.
    """
    try:
        records = get_detection_dataset_dicts(
            dataset, filter_empty=False, proposal_files=proposal_files
        )
    except KeyError as e:
        raise InputError(f"{proposal_files} has no proposals of the image {e}") from e
    if "annotations" not in records[0]:
        raise InputError(f"--dataset {dataset} has no annotations, expected some")
    return records


def load_yaml_config(
    config_file: str, opts: Sequence[str], dataset: str
) -> tuple[CfgNode, nn.Module, list[str] | None]:
    """
    Build the model of a config, which gets mining heads if it has none, and load its weights.

    Returns:
        the config, the model, and the file of the data set's proposals if it needs one.

    Raises:
        InputError: it is no two-stage model, or not for this data set, or has no weights.
    """
    cfg = load_config(config_file, opts)
    warn_of_repeated_settings(opts)
    check_keys(cfg, training=False)
    known = dict(META_ARCH_REGISTRY)
    if not issubclass(known.get(cfg.MODEL.META_ARCHITECTURE, type(None)), GeneralizedRCNN):
        raise InputError(
            f"MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE}, expected GeneralizedRCNN: "
            "hard examples are mined among the RoIs of a two-stage model"
        )
    key_of_files, proposal_files = find_proposals(cfg, dataset)
    cfg.DATASETS.TEST = (dataset,)
    cfg.DATASETS.UNREADABLE_IMAGES = "keep"  # which are named one by one
    with _naming_data_sets(cfg.DATASETS.TRAIN, "DATASETS.TRAIN", "DATASETS.TRAIN '()'", dataset):
        run_of = cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR
        register_datasets(cfg, classes_of_weights(*run_of, resume=False, training=False))
    check_classes("MODEL.ROI_HEADS.NUM_CLASSES", cfg.MODEL.ROI_HEADS.NUM_CLASSES, dataset)
    if proposal_files:
        check_proposal_files(key_of_files, proposal_files, [dataset])
    weights = ("MODEL.WEIGHTS", cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR)
    check_weights(*weights, resume=False, training=False)
    warn_of_other_config(cfg, cfg.MODEL.WEIGHTS)
    for plain, mining in COUNTERPARTS.items():
        if plain.__name__ == cfg.MODEL.ROI_HEADS.NAME:
            cfg.MODEL.ROI_HEADS.NAME = mining.__name__
    with named_settings(config_file, cfg, opts):
        model = build_model(cfg)
    warn_of_unread_options(
        model, unread_options.KEYS, box_voting_options(cfg), training=False, given=opts[::2]
    )
    load_weights(model, cfg.MODEL.WEIGHTS, dataset)
    return cfg, model, proposal_files


@keys_of_python_configs()
def load_python_config(
    config_file: str, opts: Sequence[str], dataset: str
) -> tuple[DictConfig, nn.Module, None]:
    """
    The same of a Python config, whose models find their proposals themselves.

    Raises:
        InputError: as `load_yaml_config`.
    """
    cfg = load_lazy_config(config_file, opts, training=False)
    warn_of_repeated_settings(opts, is_yaml=False)
    heads = cfg.model.get("roi_heads")
    if heads is None:
        raise InputError(
            f"there is no model.roi_heads in {config_file}, expected a two-stage model: hard "
            "examples are mined among its RoIs"
        )
    cfg.dataloader.test.dataset.names = dataset
    OmegaConf.update(cfg, "dataloader.unreadable_images", "keep", force_add=True)
    key = "dataloader.train.dataset.names"
    with _naming_data_sets(OmegaConf.select(cfg, key) or (), key, f"'{key}=[]'", dataset):
        run_of = cfg.train.init_checkpoint, cfg.train.output_dir
        register_lazy_datasets(cfg, classes_of_weights(*run_of, resume=False, training=False))
    check_classes("model.roi_heads.num_classes", heads.num_classes, dataset)
    weights = ("train.init_checkpoint", cfg.train.init_checkpoint, cfg.train.output_dir)
    check_weights(*weights, resume=False, training=False)
    warn_of_other_config(cfg, cfg.train.init_checkpoint)
    target = heads["_target_"]
    if (locate(target) if isinstance(target, str) else target) in COUNTERPARTS:
        cfg.model.roi_heads = with_ohem(heads)
    with named_settings(config_file, cfg, opts):
        model = instantiate(cfg.model).to(cfg.train.device)
    given = [x.partition("=")[0].lstrip("+") for x in opts]
    warn_of_unread_options(model, unread_options.LAZY_KEYS, training=False, given=given)
    load_weights(model, cfg.train.init_checkpoint, dataset)
    return cfg, model, None


@contextmanager
def _naming_data_sets(
    train: str | Sequence[str], key: str, without: str, dataset: str
) -> Iterator[None]:
    """
    Say where the data set is named that something is wrong with, and how to do without those of the
    training.
    """
    train = (train,) if isinstance(train, str) else train
    try:
        with named_data_sets({"--dataset": [dataset], key: train}):
            yield
    except InputError as e:
        if not str(e).startswith(key):
            raise
        raise InputError(
            f"{e}. To do without the training set, leave it out: {without} (the classes are then "
            "in the order of --dataset, expected to be that of the training)"
        ) from e


def check_classes(key: str, number: int, dataset: str) -> None:
    """
    Make sure that a data set is there, and has as many classes as the model.

    Raises:
        InputError: it has not.
    """
    with named_data_sets({"--dataset": [dataset]}):
        check_datasets(dataset)
        check_num_classes(key, number, [dataset])


def load_weights(model: nn.Module, weights: str, dataset: str) -> None:
    """
    Load the weights of a model that can be looked into.

    Args:
        model: the model.
        weights: their file.
        dataset: a registered data set, whose classes they are to be of.

    Raises:
        InputError: they are of another model, or it mines nothing.
    """
    check_model(model)
    checkpointer = SafeCheckpointer(model)
    checkpointer.class_names = class_names([dataset])
    checkpointer.load(weights)
    try_model(model, nullcontext(), checkpointer.loaded)
