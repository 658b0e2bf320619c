"""Extracts by large models what a prepared directory lacks, into a new one.

    python -m data_prep.extraction knowledge DIR --model=COMET_BART [--out=NEW_DIR]
    python -m data_prep.extraction knowledge DIR --model=COMET --translate=M2M --source_language=zh
    python -m data_prep.extraction knowledge DIR --generator=llm --model=NAME --endpoint=URL/v1
    python -m data_prep.extraction knowledge DIR --generator=retrieved --heads=FILE [--shuffled]

    python -m data_prep.extraction attributes DIR --model=QWEN_VL [--language=Chinese]
    python -m data_prep.extraction attributes DIR --model=NAME --endpoint=URL/v1
    python -m data_prep.extraction attributes DIR

knowledge: what a model infers about the replier (equations 1 and 2). attributes: gesture, posture,
face and words of each sticker (equation 7); without a model, OCR reads the words alone. Answers
are kept by content in DIR-extraction, so a run that was stopped goes on where it was. See
docs/extraction.md.
"""

from argparse import Namespace
from pathlib import Path

from data_prep import command
from data_prep.command import at_least
from data_prep.extraction import attributes, comet
from data_prep.extraction.attributes import Describer
from data_prep.extraction.comet import FromChat, FromComet
from data_prep.extraction.endpoint import Endpoint
from data_prep.extraction.prompts import load_prompt
from data_prep.extraction.retrieved import FromHeads
from data_prep.extraction.store import Shard
from data_prep.extraction.work import Chat, Work


def parser() -> command.Parser:
    """Returns the parser of the two extractions and their options."""
    extraction = command.room("extraction", __doc__)
    kinds = extraction.add_subparsers(metavar="KIND", required=True)
    knowledge = kinds.add_parser(comet.KIND, help="infers knowledge about each replier")
    knowledge.takes(_knowledge, directory="a prepared directory; it stays as it is")
    _add_common(knowledge, comet.KIND, length=400)
    add = knowledge.add_argument
    text = "What infers; retrieved: nothing does, the nearest head's generations are taken."
    add("--generator", choices=("comet", "llm", "retrieved"), default="comet", help=text)
    add("--heads", type=Path, help="Of retrieved: COMET's generations, a JSON object a line.")
    text = "Of retrieved: the control, in which each conversation gets another's knowledge."
    add("--shuffled", action="store_true", help=text)
    add("--translate", help="Model that translates into English: MarianMT, M2M100, NLLB.")
    add("--source_language", default="", help="The chats' language, in the translator's codes.")
    add("--beams", type=at_least(1), default=5, help="Beams of COMET's search.")
    text = "Phrases of a relation before cleaning."
    add("--returned", type=at_least(1), default=5, help=text)
    text = "Phrases of a relation after cleaning, at most."
    add("--keep", type=at_least(1), default=3, help=text)
    add("--phrase_tokens", type=at_least(1), default=24, help="Tokens of a phrase, at most.")
    text = "Tokens of the chat that COMET reads, at most; the newest turns are kept."
    add("--context_tokens", type=at_least(1), default=256, help=text)

    described = kinds.add_parser(attributes.KIND, help="describes each sticker")
    described.takes(_attributes, directory="a prepared directory; it stays as it is")
    _add_common(described, attributes.KIND, length=64)
    add = described.add_argument
    text = "Who reads the words on stickers. Default: both; ocr where there is no --model."
    add("--verbal", choices=attributes.VERBAL, help=text)
    text = "Frames of an animated sticker that are shown, at most."
    add("--frames", type=at_least(1), default=4, help=text)
    text = "Pixels of the longer edge that are shown, at most."
    add("--side", type=at_least(32), default=768, help=text)
    return extraction


def _add_common(kind: command.Parser, name: str, length: int) -> None:
    add = kind.add_argument
    add("--model", help="Directory or hub name; at an endpoint, the server's name for it.")
    add("--out", type=Path, help=f"New prepared directory. Default: DIR-{name}.")
    add("--cache", type=Path, help="Folder of the answers. Default: DIR-extraction.")
    text = "i/n: do the i-th of n parts and write no directory."
    add("--shard", default="1/1", help=text)
    text = "Ask nothing; write --out from the answers of all parts."
    add("--merge", action="store_true", help=text)
    add("--overwrite", action="store_true", help=f"Replace the {name} that DIR has.")
    text = "Write --out although something has no answer; it stays as it was, and is counted."
    add("--leave_unanswered", action="store_true", help=text)
    add("--prompt", type=Path, help="Prompt file to use in place of the shipped one.")
    text = "Where the model runs: auto, cpu, cuda:1, mps."
    add("--device", default="auto", help=text)
    text = "Prompts at a time, in this process."
    add("--batch_size", type=at_least(1), default=8, help=text)
    add("--max_tokens", type=at_least(1), default=length, help="Tokens of one answer, at most.")
    add("--language", default="", help="Language of the answers, by name: Chinese.")
    add("--endpoint", help="Base URL of an OpenAI-compatible server: .../v1.")
    text = "Environment variable that holds the server's key."
    add("--api_key_env", default="OPENAI_API_KEY", help=text)
    text = "Requests at a time, at an endpoint."
    add("--concurrency", type=at_least(1), default=8, help=text)
    add("--retries", type=at_least(0), default=5, help="Retries of one request.")
    text = "Seconds for one request."
    add("--timeout_s", type=at_least(0.001, float), default=120.0, help=text)


def _knowledge(line: Namespace) -> None:
    work, source = _work(line, comet.KIND), _source(line)
    comet.extract(work, source, line.keep)


def _source(line: Namespace) -> comet.Source:
    if line.generator == "retrieved":
        if line.model or line.endpoint:
            raise ValueError("--model is not read by --generator=retrieved, nor --endpoint")
        if not line.heads:
            raise ValueError("--generator=retrieved needs --heads=FILE")
        return FromHeads(line.heads, line.shuffled)
    if line.heads or line.shuffled:
        raise ValueError("--heads goes with --generator=retrieved, and so does --shuffled")
    if line.generator == "llm":
        needed = dict.fromkeys(("system", "ask", "repair", "language"), str)
        prompt = load_prompt("knowledge", needed, line.prompt)
        return FromChat(_chat(line), prompt, line.language)
    if line.endpoint:
        raise ValueError("COMET runs in this process; --endpoint goes with --generator=llm")
    if line.language:
        raise ValueError("COMET answers in English; --language goes with --generator=llm")
    return FromComet(
        model=_chat(line).model,
        prompt=load_prompt("comet", {"template": str}, line.prompt),
        translate=line.translate,
        source_language=line.source_language,
        beams=line.beams,
        returned=line.returned,
        length=line.phrase_tokens,
        context_tokens=line.context_tokens,
        batch_size=line.batch_size,
        device=line.device,
    )


def _attributes(line: Namespace) -> None:
    work = _work(line, attributes.KIND)
    needed = {**dict.fromkeys(("system", "animated", "language"), str), "questions": dict}
    prompt = load_prompt("attributes", needed, line.prompt)
    chat = _chat(line) if line.model else None
    verbal = line.verbal or ("both" if chat else "ocr")
    describer = Describer(chat, prompt, verbal, line.language)
    attributes.extract(work, describer, line.frames, line.side)


def _work(line: Namespace, name: str) -> Work:
    beside = line.directory.with_name
    return Work(
        directory=line.directory,
        out=line.out or beside(f"{line.directory.name}-{name}"),
        cache=line.cache or beside(f"{line.directory.name}-extraction"),
        shard=Shard.parse(line.shard),
        merge=line.merge,
        overwrite=line.overwrite,
        leave_unanswered=line.leave_unanswered,
    )


def _chat(line: Namespace) -> Chat:
    if not line.model:
        raise ValueError("name a model: --model=PATH_OR_NAME")
    endpoint = line.endpoint and Endpoint(
        url=line.endpoint,
        model=line.model,
        key_variable=line.api_key_env,
        concurrency=line.concurrency,
        retries=line.retries,
        timeout_s=line.timeout_s,
        length=line.max_tokens,
    )
    return Chat(line.model, endpoint or None, line.device, line.batch_size, line.max_tokens)


if __name__ == "__main__":
    command.run(parser())
