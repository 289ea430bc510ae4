"""Which keypoints are left and right of each other, by their names."""

import re
from collections.abc import Sequence

# Words for left and right, in small letters.
_SIDES = (
    ("left", "right"), ("l", "r"), ("lt", "rt"), ("lft", "rgt"),
    ("links", "rechts"), ("linker", "rechter"), ("linke", "rechte"), ("linkes", "rechtes"),
    ("gauche", "droite"), ("gauche", "droit"), ("izquierda", "derecha"),
    ("izquierdo", "derecho"), ("izq", "der"), ("esquerda", "direita"), ("esquerdo", "direito"),
    ("sinistra", "destra"), ("sinistro", "destro"), ("sx", "dx"), ("sin", "dex"),
    ("左", "右"),
)  # fmt: skip
# These are told apart without a separator too: "lefteye", "eyeleft".
_GLUED = (("left", "right"), ("links", "rechts"), ("左", "右"))
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|\d+")


def flip_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """
    Find the keypoints that change places when an image is mirrored.

    Args:
        names: of the keypoints, such as "left_eye", "Left eye", "LeftEye", "eye_l", "eye.L".

    Returns:
        the names of each pair, left and right.
    """
    words = {name: tuple(x.lower() for x in _WORDS.findall(name)) for name in names}
    pairs: dict[str, str] = {}
    taken: set[str] = set()
    for left in names:
        for mirrored in _mirrored(words[left], left):
            right = next((n for n in names if n != left and mirrored in (words[n], n.lower())), "")
            if right and not {left, right} & taken:
                pairs[left] = right
                taken |= {left, right}
    return list(pairs.items())


def _mirrored(words: tuple[str, ...], name: str) -> list[tuple[str, ...] | str]:
    """What the name on the right may be: its words, or the name in small letters."""
    found: list[tuple[str, ...] | str] = []
    for left, right in _SIDES:
        if left in words:
            found.append(tuple(right if x == left else x for x in words))
    name = name.lower()
    found += [name.replace(left, right) for left, right in _GLUED if left in name]
    # The last resort: "leye" and "reye", "eyel" and "eyer".
    if len(name) > 3:
        found += [f"r{name[1:]}"] if name[0] == "l" else []
        found += [f"{name[:-1]}r"] if name[-1] == "l" else []
    return found
