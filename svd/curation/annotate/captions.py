"""A caption that says only what was measured: light, colours, camera, motion.

It names no object, since nothing here recognises one; its source says "measured".
"""

from svd.curation.annotate.look import colour_shares
from svd.curation.annotate.scoring import ClipView
from svd.types.annotation import Caption, Scorer

_MEASURED = Scorer(name="measured-caption", version="1", settings={})

_MIN_COLOUR_SHARE = 0.15  # of the picture, to be named
_MAX_COLOURS = 3
_STILL_PX = 0.25  # flow per half second at 128 px, below which nothing moves
_CAMERA_PX = 1.0  # shift per half second at 128 px, from which the camera moves
_CAMERA_ZOOM = 0.01  # relative growth per half second, from which it zooms
_CAMERA_ROLL = 0.02  # radians per half second
_MIN_EXPLAINED = 0.5  # share of the flow a camera motion must explain to be named
_FAST_PX = 12.0
_OBJECT_PX = 1.0  # residual flow from which things move by themselves


def measured_caption(view: ClipView, scores: dict[str, float]) -> Caption:
    """Return one sentence from a clip's scores and colours.

    Args:
        view: The clip.
        scores: Its scores, by full name.
    """
    parts = [_picture(view, scores), _camera(scores), _objects(scores)]
    text = ", ".join(part for part in parts if part)
    return Caption(text=f"{text[0].upper()}{text[1:]}.", source="measured", scorer=_MEASURED)


def _picture(view: ClipView, scores: dict[str, float]) -> str:
    brightness = scores.get("look.brightness", 0.5)
    light = "a dark" if brightness < 0.25 else "a bright" if brightness > 0.6 else "a"
    tone = " muted" if scores.get("look.saturation", 0.5) < 0.2 else ""
    shares = colour_shares(view.pictures)
    named = [name for name, share in shares.items() if share >= _MIN_COLOUR_SHARE][:_MAX_COLOURS]
    colours = " and ".join(filter(None, [", ".join(named[:-1]), *named[-1:]]))
    return f"{light}{tone} picture in {colours}" if colours else f"{light}{tone} picture"


def _camera(scores: dict[str, float]) -> str:
    if "camera.shift_x" not in scores:
        return ""
    if scores["motion.dis_px"] < _STILL_PX:
        return "static camera"
    moves = _camera_moves(scores) if scores["camera.explained"] >= _MIN_EXPLAINED else []
    if not moves:
        return "steady camera" if scores["camera.speed_px"] < _CAMERA_PX else "moving camera"
    return "camera " + " and ".join(moves)


def _camera_moves(scores: dict[str, float]) -> list[str]:
    """Name the camera's moves; content that shifts right means a camera that pans left."""
    moves = []
    if abs(scores["camera.shift_x"]) >= _CAMERA_PX:
        moves.append("pans left" if scores["camera.shift_x"] > 0 else "pans right")
    if abs(scores["camera.shift_y"]) >= _CAMERA_PX:
        moves.append("tilts up" if scores["camera.shift_y"] > 0 else "tilts down")
    if abs(scores["camera.zoom"]) >= _CAMERA_ZOOM:
        moves.append("zooms in" if scores["camera.zoom"] > 0 else "zooms out")
    if abs(scores["camera.roll"]) >= _CAMERA_ROLL:
        moves.append("rolls")
    return moves


def _objects(scores: dict[str, float]) -> str:
    if "motion.dis_px" not in scores:
        return ""
    if scores["motion.dis_px"] < _STILL_PX:
        return "nothing moves"
    if scores["camera.residual_px"] < _OBJECT_PX:
        return ""
    return "fast motion" if scores["motion.dis_px"] >= _FAST_PX else "moving objects"
