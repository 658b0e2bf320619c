"""Draws an animation that no image library decodes as an animated WebP; a process of its own.

    python -P animation_frames.py < sticker.tgs > sticker.webp

Decoders of vector graphics and of video are C and C++, and files from third parties are hostile:
one that kills its decoder must not end an import of thousands. ``animations`` starts this script,
which therefore imports nothing of ours.
"""

import contextlib
import io
import json
import sys
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

from PIL import Image

LOTTIE, VIDEO = "Lottie", "video"
FRAMES = 12  # of an animation, at most
SIDE = 512  # pixels of its longer edge, at most; nothing is enlarged
MAX_LOTTIE = 16 * 2**20  # bytes of JSON, unpacked
MAX_PIXELS = 40_000_000  # of a video's frame
MAX_PACKETS = 1_000  # of a video; what comes after them is not read
_MEMORY = 4 * 2**30  # bytes
_SECONDS = 60  # of processor time
_STEP = (20, 1_000)  # milliseconds for which a frame is shown, at least and at most
_DECODERS = {"vp9": "libvpx-vp9", "vp8": "libvpx"}  # FFmpeg's own decoders drop the transparency


def kind(content: bytes) -> str | None:
    """Returns what draws an animation, or None where it is a picture or something else.

    Args:
      content: gzip or JSON (Lottie, ``.tgs``), a zip that holds JSON (``.was``), or WebM.
    """
    if content.startswith(b"\x1aE\xdf\xa3"):
        return VIDEO
    start = content[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    return LOTTIE if start.startswith((b"\x1f\x8b", b"PK\x03\x04", b"{")) else None


def as_webp(content: bytes) -> bytes:
    """Returns the animation as an animated WebP with its transparency.

    Args:
      content: as ``kind`` knows it.

    Raises:
      Exception: whatever a decoder of hostile bytes raises.
    """
    frames, milliseconds = (_video if kind(content) == VIDEO else _lottie)(content)
    shortest, longest = _STEP
    duration = min(max(milliseconds // len(frames), shortest), longest)
    picture = io.BytesIO()
    options: dict[str, Any] = {"quality": 90, "duration": duration, "loop": 0}
    frames[0].save(picture, "WEBP", save_all=True, append_images=frames[1:], **options)
    return picture.getvalue()


def _lottie(content: bytes) -> tuple[list[Image.Image], int]:
    from rlottie_python import LottieAnimation  # needed for such animations only

    with LottieAnimation.from_data(_lottie_text(content)) as animation:
        width, height = animation.lottie_animation_get_size()
        total = animation.lottie_animation_get_totalframe()
        if not (width and height and total):
            raise ValueError("no animation")
        size = _bounded(width, height)
        frames = []
        for number in _evenly(total):
            drawn = animation.lottie_animation_render(number, width=size[0], height=size[1])
            # The renderer multiplies colours by the opacity, which "BGRa" takes back.
            frames.append(Image.frombytes("RGBA", size, bytes(drawn), "raw", "BGRa"))
        return frames, round(1000 * animation.lottie_animation_get_duration())


def _lottie_text(content: bytes) -> str:
    """Returns the JSON of an animation that draws itself and reads no file of this machine."""
    animation = json.loads(_unpacked(content).decode("utf-8-sig"))
    assets = animation.get("assets") or []
    for asset in assets:
        file = asset.get("p")
        embedded = asset.get("e") == 1 and isinstance(file, str) and file.startswith("data:")
        if file is not None and not embedded:
            raise ValueError("an animation that names files outside it")
    return json.dumps(animation)  # what was looked at, and not a second key of the same name


def _unpacked(content: bytes) -> bytes:
    if content.startswith(b"\x1f\x8b"):
        text = zlib.decompressobj(31).decompress(content, MAX_LOTTIE + 1)
    elif content.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [one for one in archive.namelist() if one.lower().endswith(".json")]
            names.sort(key=lambda one: not one.endswith("animation.json"))
            with archive.open(names[0]) as member:
                text = member.read(MAX_LOTTIE + 1)
    else:
        text = content[: MAX_LOTTIE + 1]
    if len(text) > MAX_LOTTIE:
        raise ValueError(f"more than {MAX_LOTTIE:,} bytes of JSON")
    return text


def _video(content: bytes) -> tuple[list[Image.Image], int]:
    import av  # needed for such animations only

    container: Any  # av types it as one that may be written as well
    with av.open(io.BytesIO(content), format="matroska") as container:
        stream = container.streams.video[0]
        width, height = stream.codec_context.width, stream.codec_context.height
        if not 0 < width * height <= MAX_PIXELS:
            raise ValueError(f"frames of {width} x {height} pixels")
        packets = [packet for packet in container.demux(stream) if packet.size][:MAX_PACKETS]
        decoder = _decoder(stream)
        size, wanted = _bounded(width, height), set(_evenly(len(packets)))
        frames = []
        decoded = (frame for packet in [*packets, None] for frame in decoder.decode(packet))
        for number, frame in enumerate(decoded):
            if number in wanted:
                drawn = frame.reformat(width=size[0], height=size[1], format="rgba")
                frames.append(Image.fromarray(drawn.to_ndarray()))
        if not frames:
            raise ValueError("no frame")
        rate = stream.average_rate or stream.base_rate or 25
        return frames, round(1000 * len(packets) / float(rate))


def _decoder(stream: Any) -> Any:
    import av

    name = _DECODERS.get(stream.codec_context.name)
    if name not in av.codecs_available:
        return stream.codec_context
    decoder = av.codec.CodecContext.create(name, "r")
    decoder.extradata = stream.codec_context.extradata
    return decoder


def _evenly(total: int) -> Iterator[int]:
    """Yields the numbers of frames that are as far from each other, beginning with the first."""
    parts = min(total, FRAMES)
    return (part * total // parts for part in range(parts))


def _bounded(width: int, height: int) -> tuple[int, int]:
    longer = max(width, height, SIDE)
    return max(1, width * SIDE // longer), max(1, height * SIDE // longer)


def _limit() -> None:
    """Ends this process where a file makes it take more than its share."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # of Unix

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))


if __name__ == "__main__":
    _limit()
    try:
        drawn = as_webp(sys.stdin.buffer.read())
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {error}")
    sys.stdout.buffer.write(drawn)
