"""A chat model in this process, by transformers: Qwen-VL, LLaVA, or a language model."""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from data_prep.extraction import device as devices
from data_prep.extraction.answers import NoAnswer
from data_prep.extraction.dialogue import Message, Patience, Session
from int_ra_jax.common.model_directory import read_json

REFUSED = "the model's processor refused it"


class _Refused(Exception):
    """The processor or the model did not take a batch."""


class InProcessChat:
    """Answers sessions in batches, greedily."""

    def __init__(
        self,
        directory: Path,
        *,
        sees: bool,
        wanted_device: str,
        batch_size: int,
        length: int,
        proven: bool = False,
    ) -> None:
        """Loads a checkpoint.

        Args:
          directory: as transformers saves it, with a chat template.
          sees: an image-text-to-text model with its processor; else a language model.
          wanted_device: "auto" or a device of torch.
          batch_size: dialogues at a time.
          length: tokens of a reply, at most.
          proven: whether earlier runs have had answers; see ``Patience``.

        Raises:
          ValueError: if it does not load, or has no chat template.
        """
        device = devices.torch_device(wanted_device)
        import transformers

        _refuse_own_code(directory)
        kind = "AutoModelForImageTextToText" if sees else "AutoModelForCausalLM"
        try:
            self._model: Any = getattr(transformers, kind).from_pretrained(
                directory, dtype=devices.torch_dtype(device)
            )
            self._processor: Any = (
                _load_processor(directory)
                if sees
                else transformers.AutoTokenizer.from_pretrained(directory)
            )
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            raise ValueError(f"{directory} does not load by {kind}: {error}") from error
        if not self._processor.chat_template:
            raise ValueError(f"{directory} has no chat template; take a model tuned for chats")
        self._tokenizer: Any = self._processor.tokenizer if sees else self._processor
        self._tokenizer.padding_side = "left"
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._model.to(device).eval()
        self._sees, self._batch_size, self._length = sees, batch_size, length
        self._directory, self._patience = directory, Patience(proven)

    def run(self, sessions: Iterable[Session], done: Callable[[Session], None]) -> None:
        """Answers sessions; see ``ChatBackend``."""
        waiting = iter(sessions)
        while group := list(islice(waiting, self._batch_size)):
            active = group
            try:
                while active:
                    for session, reply in zip(active, self._replies(active), strict=True):
                        self._take(session, reply)
                    active = [one for one in active if one.pending and not one.failure]
            finally:  # also of what was answered before the run ended
                for session in group:
                    done(session)

    def _take(self, session: Session, reply: str | NoAnswer) -> None:
        try:
            if isinstance(reply, NoAnswer):
                raise reply
            session.accept(reply)
            self._patience.answered()
        except NoAnswer as failure:
            self._patience.failed(session, failure, str(self._directory))

    def _replies(self, sessions: Sequence[Session]) -> list[str | NoAnswer]:
        """Returns a reply to each; if the batch fails, each is asked alone and harms no other."""
        try:
            return [*self._reply(sessions)]
        except _Refused as error:
            if len(sessions) == 1:
                return [NoAnswer(REFUSED, str(error))]
            return [reply for session in sessions for reply in self._replies([session])]

    def _reply(self, sessions: Sequence[Session]) -> list[str]:
        import torch

        padded: Any = {"processor_kwargs": {"padding": True}} if self._sees else {"padding": True}
        try:
            inputs = self._processor.apply_chat_template(
                [[self._message(m) for m in session.pending or ()] for session in sessions],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                **padded,
            )
            with torch.inference_mode():
                tokens = self._model.generate(
                    **inputs.to(self._model.device),
                    max_new_tokens=self._length,
                    max_length=None,
                    do_sample=False,
                    temperature=None,
                    top_p=None,
                    top_k=None,
                    pad_token_id=self._tokenizer.pad_token_id,
                )
        except torch.OutOfMemoryError:
            raise  # no fault of any question: the advice is another --batch_size
        except (ValueError, TypeError, RuntimeError, LookupError, OSError) as error:
            raise _Refused(" ".join(str(error).split())) from error
        new = tokens[:, inputs["input_ids"].shape[1] :]
        return [
            text.strip() for text in self._tokenizer.batch_decode(new, skip_special_tokens=True)
        ]

    def _message(self, message: Message) -> dict[str, Any]:
        if not self._sees:
            return {"role": message.role, "content": message.text}
        frames = message.picture.load() if message.picture else []
        images = [{"type": "image", "image": frame} for frame in frames]
        return {"role": message.role, "content": [*images, {"type": "text", "text": message.text}]}


def _refuse_own_code(directory: Path) -> None:
    """Refuses a model whose classes are code of its repository, as those of Qwen-VL (2023) are.

    Raises:
      ValueError: if transformers does not have them; it would ask on the terminal to run that code.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    config = read_json(directory / "config.json", [])
    kind = config.get("model_type")
    if "auto_map" in config and kind not in CONFIG_MAPPING_NAMES:
        raise ValueError(
            f"{directory}: the classes of model_type {kind!r} are code of its repository, which is "
            "not run here. Take a model whose classes are in transformers, such as Qwen2-VL in "
            "place of Qwen-VL, or reach this one by --endpoint (docs/extraction.md)"
        )


def _load_processor(directory: Path) -> Any:
    """Returns the checkpoint's processor, without its part for videos where torchvision is absent.

    Qwen-VL's processor insists on a video processor, and that on torchvision. Stickers are images.
    """
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
    from transformers.utils import is_torchvision_available

    config = transformers.AutoConfig.from_pretrained(directory)
    known: Any = PROCESSOR_MAPPING.get(type(config), None)
    wants_video = known is not None and "video_processor" in known.get_attributes()
    if is_torchvision_available() or not wants_video:
        return transformers.AutoProcessor.from_pretrained(directory)

    class ImagesOnly(known):  # type: ignore[misc]
        def check_argument_for_proper_class(self, name: str, argument: Any) -> Any:
            return (
                None
                if argument is None
                else super().check_argument_for_proper_class(name, argument)
            )

    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    image_processor = transformers.AutoImageProcessor.from_pretrained(directory)
    return ImagesOnly(image_processor, tokenizer, None, chat_template=tokenizer.chat_template)
