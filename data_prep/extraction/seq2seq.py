"""Encoder-decoder models by transformers: COMET-BART, and the translators before it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.extraction import device as devices


class Seq2Seq:
    """A checkpoint that turns text into text, by beam search, batched by length.

    Attributes:
      tokenizer: its own.
      model: in evaluation mode, on the device.
    """

    def __init__(self, directory: Path, wanted_device: str, class_name: str) -> None:
        """Loads a checkpoint.

        Args:
          directory: as transformers saves it.
          wanted_device: "auto" or a device of torch.
          class_name: of transformers: BartForConditionalGeneration, or AutoModelForSeq2SeqLM for
            translators (MarianMT, M2M100, NLLB).

        Raises:
          ValueError: if the directory does not hold such a model.
        """
        self._device = devices.torch_device(wanted_device)
        import transformers

        try:
            self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(directory)
            self.model: Any = getattr(transformers, class_name).from_pretrained(
                directory, dtype=devices.torch_dtype(self._device)
            )
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            raise ValueError(f"{directory} does not load as {class_name}: {error}") from error
        if class_name.startswith("Bart") and self.model.config.model_type != "bart":
            raise ValueError(f"{directory} holds a {self.model.config.model_type} model, not BART")
        self.model.to(self._device).eval()
        places = getattr(self.model.config, "max_position_embeddings", None)
        self._longest = min(places or 512, 1024)

    def generate(
        self,
        texts: Sequence[str],
        *,
        batch_size: int,
        beams: int,
        returned: int,
        length: int,
        first_token: int | None = None,
    ) -> list[list[str]]:
        """Returns the ``returned`` best continuations of each text, best first.

        A continuation that reached ``length`` before it ended is left out: it is a fragment.

        Args:
          texts: in any order; the longest are done first, so that memory runs out at once or never.
          batch_size: texts at a time.
          beams: of the search.
          returned: continuations of each text; at most ``beams``.
          length: tokens of a continuation, at most.
          first_token: the target language's, where the model asks for one.
        """
        import torch

        ids = [
            self.tokenizer(text, truncation=True, max_length=self._longest)["input_ids"]
            for text in texts
        ]
        order = sorted(range(len(texts)), key=lambda row: -len(ids[row]))
        outputs: list[list[str]] = [[] for _ in texts]
        extra = {} if first_token is None else {"forced_bos_token_id": first_token}
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = self.tokenizer.pad({"input_ids": [ids[r] for r in rows]}, return_tensors="pt")
            with torch.inference_mode():
                tokens = self.model.generate(
                    **batch.to(self._device),
                    num_beams=beams,
                    num_return_sequences=returned,
                    max_new_tokens=length,
                    max_length=None,
                    do_sample=False,
                    early_stopping=True,
                    **extra,
                )
            for place, sequence in enumerate(tokens.tolist()):
                if self._has_ended(sequence):
                    text = self.tokenizer.decode(sequence, skip_special_tokens=True)
                    outputs[rows[place // returned]].append(text.strip())
        return outputs

    def _has_ended(self, sequence: list[int]) -> bool:
        # The first token starts the decoder and is the end token in BART and M2M100.
        return self.model.generation_config.eos_token_id in sequence[1:]


class Translator:
    """Translates turns into English, each by itself, as such models were trained."""

    def __init__(self, directory: Path, wanted_device: str, source_language: str) -> None:
        """Loads a translator.

        Args:
          directory: MarianMT (one pair of languages), M2M100 or NLLB (many).
          wanted_device: as ``Seq2Seq``.
          source_language: in the model's own codes: zh for M2M100, zho_Hans for NLLB; "" for
            MarianMT, which knows but one.

        Raises:
          ValueError: if the model needs a language and has none of that code.
        """
        self._model = Seq2Seq(directory, wanted_device, "AutoModelForSeq2SeqLM")
        tokenizer = self._model.tokenizer
        self._first: int | None = None
        if not hasattr(tokenizer, "src_lang"):
            return
        codes = set(getattr(tokenizer, "lang_code_to_token", ())) | set(
            tokenizer.additional_special_tokens
            if hasattr(tokenizer, "additional_special_tokens")
            else tokenizer.extra_special_tokens
        )
        if source_language not in codes:
            shown = ", ".join(sorted(c for c in codes if not c.startswith("_"))[:12])
            raise ValueError(
                f"--source_language={source_language!r} is no language of {directory}. "
                f"Choose one of its codes, such as {shown}."
            )
        tokenizer.src_lang = source_language
        many = hasattr(tokenizer, "get_lang_id")
        self._first = (
            tokenizer.get_lang_id("en") if many else tokenizer.convert_tokens_to_ids("eng_Latn")
        )

    def __call__(self, texts: Sequence[str], batch_size: int) -> list[str]:
        """Returns the translations; a text the model gives nothing for becomes empty."""
        distinct = list(dict.fromkeys(text for text in texts if text.strip()))
        found = self._model.generate(
            distinct,
            batch_size=batch_size,
            beams=4,
            returned=1,
            length=256,
            first_token=self._first,
        )
        table = {text: (out[0] if out else "") for text, out in zip(distinct, found, strict=True)}
        return [table.get(text, "") for text in texts]


@dataclass(frozen=True)
class Comet:
    """COMET-BART: the phrases it generates for a context and a relation (eq. 1).

    Attributes:
      model: a ``BartForConditionalGeneration``.
      template: with ``{context}`` and ``{relation}``.
      relations: asked of each context.
      beams: of the search.
      returned: phrases for each relation.
      length: tokens of a phrase, at most.
      context_tokens: budget of the context; the oldest turns are left out first.
    """

    model: Seq2Seq
    template: str
    relations: Sequence[str]
    beams: int
    returned: int
    length: int
    context_tokens: int

    def __call__(self, contexts: Sequence[Sequence[str]], batch_size: int) -> list[dict[str, Any]]:
        """Returns relation -> raw phrases for each context; nothing for an empty one.

        Args:
          contexts: texts of the turns, oldest first.
          batch_size: prompts at a time.
        """
        fitted = [self.fit(context) for context in contexts]
        asked = [
            (row, relation)
            for row, text in enumerate(fitted)
            if text
            for relation in self.relations
        ]
        found = self.model.generate(
            [self.template.format(context=fitted[row], relation=one) for row, one in asked],
            batch_size=batch_size,
            beams=self.beams,
            returned=self.returned,
            length=self.length,
        )
        results: list[dict[str, Any]] = [
            {relation: [] for relation in self.relations} for _ in contexts
        ]
        for (row, relation), phrases in zip(asked, found, strict=True):
            results[row][relation] = phrases
        return results

    def fit(self, turns: Sequence[str]) -> str:
        """Joins the newest turns that fit into the budget; of a single longer one, its end."""
        kept: list[str] = []
        left = self.context_tokens
        for turn in reversed([turn.strip() for turn in turns if turn.strip()]):
            ids = self.model.tokenizer(turn, add_special_tokens=False)["input_ids"]
            if len(ids) > left:
                if not kept:
                    kept.append(self.model.tokenizer.decode(ids[-left:]).strip())
                break
            kept.append(turn)
            left -= len(ids)
        return " ".join(reversed(kept))
