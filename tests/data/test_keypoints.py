import pytest

from ohem_d2.data.keypoints import flip_pairs


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("left_eye", "right_eye"),
        ("Left eye", "Right eye"),
        ("LEFT_EYE", "RIGHT_EYE"),
        ("left-eye", "right-eye"),
        ("eye left", "eye right"),
        ("eye_l", "eye_r"),
        ("eye.L", "eye.R"),
        ("L_eye", "R_eye"),
        ("l_eye", "r_eye"),
        ("LeftEye", "RightEye"),
        ("leftEye", "rightEye"),
        ("eyeLeft", "eyeRight"),
        ("lefteye", "righteye"),
        ("LEye", "REye"),
        ("leye", "reye"),
        ("EyeL", "EyeR"),
        ("L1", "R1"),
        ("hand_L_01", "hand_R_01"),
        ("Auge links", "Auge rechts"),
        ("oeil gauche", "oeil droit"),
        ("left_eye_left_corner", "right_eye_right_corner"),
        ("左眼", "右眼"),
    ],
)
def test_pairs(left, right):
    assert flip_pairs(["nose", left, right, "tail"]) == [(left, right)]
    assert flip_pairs([right, "nose", left]) == [(left, right)]


@pytest.mark.parametrize(
    "names",
    [
        ["nose", "tail"],
        ["left_eye", "nose"],
        ["left_eye", "right_ear"],
        ["0", "1", "2"],
        ["leg", "knee"],
        ["l", "nose"],
        [],
    ],
)
def test_no_pairs(names):
    assert flip_pairs(names) == []


def test_cocos_own():
    names = [
        "nose",
        "left_eye",
        "right_eye",
        "left_ear",
        "right_ear",
        "left_shoulder",
        "right_shoulder",
    ]
    assert flip_pairs(names) == list(zip(names[1::2], names[2::2]))


def test_no_name_is_in_two_pairs():
    assert flip_pairs(["left_eye", "eye_left", "right_eye", "eye_right"]) == [
        ("left_eye", "right_eye"),
        ("eye_left", "eye_right"),
    ]
