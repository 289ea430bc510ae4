"""Blocks of docs/what_it_survives.md, from what survival.py and bad_inputs.py stored."""

from collections.abc import Callable

from figures import stored
from figures.markdown import table, wrapped


def kills() -> str:
    """How many killed runs ended with the weights of uninterrupted ones."""
    content = stored.content("survival/kills.json")
    rows = []
    for run in content["runs"]:
        found = [x["difference"] for x in run["kills"]]
        same = f"{found.count(0)} of {len(found)}"
        differences = [x for x in found if x]
        rows.append(
            [
                run["trainer"],
                run["sampling"],
                str(run["workers"]),
                str(run["processes"]),
                f"**{same}**" if run["trainer"] == "ohem_d2" else same,
                f"{max(differences):.1g}" if differences else "0",
                str(sum(x["half_files"] for x in run["kills"])),
            ]
        )
    titles = ["trainer", "sampling", "workers", "processes"]
    titles += ["identical after a kill", "largest difference", "half-written checkpoints left"]
    of_ours = [x for r in content["runs"] if r["trainer"] == "ohem_d2" for x in r["kills"]]
    late = sum(x["checkpoint"] == "model_final.pth" for x in of_ours)
    control = max(run["control"] for run in content["runs"])
    environment = content["environment"].replace(" 1 threads", " 1 thread")
    text = (
        f"Runs of {content['steps']} steps, with a checkpoint every "
        f"{content['checkpoint_period']}. Two uninterrupted runs differ by {control:g}. "
        f"{late} of the {len(of_ours)} kills of ohem_d2 came after its last step, so that nothing "
        "was left to train. "
        f"Detectron2's trainer needs GPUs for several processes. Measured with {environment}."
    )
    return f"{table(titles, rows)}\n\n{wrapped(text)}"


# What a wrong input is answered with, in the order of the table, and in words.
ANSWERS = {
    "one line": "one line that names it",
    "traceback": "a traceback",
    "too late": "an error, too late",
    "accepted": "accepted",
    "no end": "timed out",
}


def bad_inputs() -> str:
    """How many wrong inputs of each kind are answered how."""
    inputs = stored.content("survival/inputs.json")["inputs"]
    kinds = list(dict.fromkeys(x["kind"] for x in inputs))
    rows = []
    for kind in [*kinds, "all"]:
        these = [x for x in inputs if kind in (x["kind"], "all")]
        for who, words in (("ohem_d2", "ohem-d2"), ("detectron2", "Detectron2")):
            answers = [x[who] for x in these if who in x]
            counts = [answers.count(answer) for answer in ANSWERS]
            rows.append([kind, words, f"{len(answers)}", *map(str, counts)])
    return table(["wrong", "given to", "inputs", *ANSWERS.values()], rows)


BLOCKS: dict[str, Callable[[], str]] = {
    "kills": kills,
    "bad-inputs": bad_inputs,
}
