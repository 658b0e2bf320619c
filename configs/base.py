"""Every key of a run, once: its default, its unit and what it means.

The defaults are the paper's where the paper gives a number (marked with its section) and ours
where it does not (marked ``# not in paper``). Model files such as ``int_ra.py`` add their own
section and presets. Imports ml_collections and the
standard library only, so that a config loads in milliseconds.
"""

from collections.abc import Iterator

from ml_collections import ConfigDict

from configs.rules import ABOVE_0, FROM_0, LAYERS, RATE, Rule, at_least, each, one_of, window

PROTOCOLS, SPLITS = ("paper", "multi", "exact"), ("train", "valid", "test")


def tower() -> ConfigDict:
    """Returns the section of one tower: where its weights come from and how much of it trains."""
    return ConfigDict(
        {
            # Directory, hub name, or package:NAME/FOLDER of a checkpoint. "" = random weights of
            # the shape below.
            "source": "",
            # The embeddings and the first n layers are frozen, so that their output can be cached:
            # 0 = everything trains, -1 = the whole tower is frozen.
            "frozen_layers": 0,  # not in paper: which towers train
            # Rank of the low-rank updates that train in place of the tower's linear layers, which
            # freezes everything else in it; 0 = off.  # not in paper
            "lora_rank": 0,
            "lora_alpha": 16.0,  # the update is scaled by lora_alpha / lora_rank
            # Whether features have each channel's mean taken away and are divided by its deviation,
            # as the first parameters give them on train: what a frozen tower gives every text
            # alike hides what differs.  # not in paper
            "standardise": False,
            # Shape of a random tower; not read when source is given.
            "width": 64,  # channels
            "layers": 2,
            "heads": 4,
            "patch": 16,  # pixels; image tower only
            "vocabulary": 4096,  # word pieces learnt from the training split; text tower only
        }
    )


def get_config(arg: str = "") -> ConfigDict:
    """Returns the sections that every system shares.

    Args:
      arg: ignored here; model files read their preset from it.
    """
    config = ConfigDict()
    config.seed = 0  # parameters, data order, dropout and sampled negatives all derive from it
    config.model = ConfigDict(
        {
            "name": "",
            "joint_width": 512,  # D; channels of query and sticker embedding  # not in paper
            "text_pool": "cls",  # cls | mean | last: how a text's tokens become one vector
            "dropout": 0.0,  # rate, in the towers' live layers and before the heads  # not in paper
            "dtype": "float32",  # compute: float32 | bfloat16; parameters, norms, losses: float32
            # Whether the query reads the newest turn's tokens alone, after the tower has read all
            # turns; SRS, which compares turn by turn, does not read this.  # not in paper
            "newest_turn": False,
            # the stickers' attribute texts: on | off; Int-RA's eq. 9 to 12, elsewhere their mean is
            # added to the image features
            "attributes": "off",
            # weight beside the score of the probability that the query's intention is one of those
            # the sticker is annotated with in train; 0 = off  # not in paper
            "intention_match": 0.0,
            # keeps only the layers' inputs for the backward pass and computes the rest again
            "remat": False,
        }
    )
    config.model.text = tower()
    config.model.image = tower()
    # Of losses that compare with the gallery; each system's file adds its own.
    config.loss = ConfigDict(
        {
            "bank_size": 0,  # gallery stickers sampled per step; 0 = the whole gallery
            # steps between refreshes of the bank's embeddings; read while a tower below the
            # sticker embedding trains, since other columns would cost a full encoding each step
            "bank_refresh_steps": 100,
            # False: stickers that no conversation of train was answered by are no negatives, since
            # they can never be positives and would only be pushed away
            "unseen_negatives": True,
        }
    )
    config.text = ConfigDict(
        {
            # tokens, [CLS] and [SEP]s included; the oldest turns are dropped first
            "context_tokens": 192,  # not in paper
            "knowledge_tokens": 64,  # tokens; cut on its own  # not in paper
            "attribute_tokens": 32,  # tokens per attribute  # not in paper
            "name_tokens": 16,  # tokens per intention name  # not in paper
            "speakers": "prefix",  # prefix: "A :" before each turn, replier named last | off
            "knowledge": "append",  # append: C_know after the turns (eq. 3) | off
            # keep: as they are | words: each by its name, in the language that the tower reads,
            # since a vocabulary without emoji reads them all alike  # not in paper
            "emoji": "keep",
        }
    )
    config.data = ConfigDict(
        {
            "prepared_dir": "",  # the prepared directory (docs/data.md); required
            "tfds_dir": "",  # TFDS records; "" = WORKDIR/tfds, so that a workdir stands alone
            "image_size": 224,  # pixels, square; the released code's  # not in paper
            # squeeze: the whole sticker | crop: its middle square, as CLIP was trained
            "resize": "squeeze",
            # which frame of an animation: first | middle | mean (of the features of four)
            "frame": "first",
        }
    )
    config.mesh = ConfigDict({"data": 1, "fsdp": 1, "tensor": 1})  # devices; data=-1: all the rest
    config.optim = ConfigDict(
        {
            "name": "adam",  # adam | adamw  (Sec. 5.1)
            "lr": 1e-4,  # at the end of warm-up (Sec. 5.1)
            "schedule": "constant",  # constant | cosine | linear  # not in paper
            "warmup_steps": 0,  # not in paper
            "weight_decay": 0.0,  # adamw only, on kernels only  # not in paper
            "b1": 0.9,
            "b2": 0.999,
            "eps": 1e-8,
            "clip_norm": 0.0,  # global gradient norm; 0 = off  # not in paper
            # learning-rate factors by role
            "multipliers": ConfigDict({"text": 1.0, "image": 1.0, "head": 1.0}),
            "frozen": (),  # regexes of parameter paths, on top of the towers' frozen_layers
        }
    )
    config.train = ConfigDict(
        {
            "batch_size": 4,  # conversations, all devices together (Sec. 5.1)
            "epochs": 10.0,  # passes over train; turned into steps once  # not in paper
            "max_steps": 0,  # stops earlier than the epochs; 0 = off
            "log_steps": 10,  # between progress lines
            "eval_steps": 500,  # between validations; 0 = only at the end
            # parts that a batch is encoded in, one after the other, to save memory; the loss still
            # compares the whole batch, so the gradient is that of one part
            "micro_batches": 1,
            # of a running average of the trained parameters, which is then what is evaluated;
            # 0 = off  # not in paper
            "ema_decay": 0.0,
            # batches of conversations of like length, padded to a multiple of so many tokens;
            # 0 = every batch is padded to the budgets of config.text
            "bucket_tokens": 0,
            "bucket_batches": 50,  # sorted by length within so many batches of the shuffled order
            # compiled programs, so that a restart need not compile: workdir | off | a directory
            "compilation_cache": "workdir",
            # caches the frozen layers' output of every training conversation on the device
            "cache_frozen": True,
            "cache_limit_gib": 4.0,  # refuses a larger cache before computing it
            # what that cache holds: same (as the tower computes in) | float16 | bfloat16
            "cache_dtype": "same",
            # conversations of train that are used, at most, drawn once whatever the seed; all else
            # that is read of train (annotations, vocabulary) is theirs, too; 0 = all
            "rows": 0,
            # folder in which runs on the same data keep what all of them would compute alike: the
            # frozen text layers' output, lengths, the evaluation's linear row; "" = nothing is kept
            "shared_cache": "",
        }
    )
    config.eval = ConfigDict(
        {
            "batch_size": 32,  # conversations
            "sticker_batch_size": 64,  # stickers encoded at once
            # under exact, training also selects by the gold sticker
            "protocol": "multi",  # which stickers count: paper | multi | exact (docs/evaluation.md)
            "split": "test",  # what --mode=eval reports; training always selects on valid
            "resamples": 10_000,  # bootstrap, over queries
            "conversations": 24,  # drawn in the report; at least 20 where the split has them
        }
    )
    config.checkpoint = ConfigDict(
        {
            "steps": 0,  # between checkpoints; 0 = at every validation
            "keep_newest": 2,  # besides the best by validation mAP
            "resume_from": "",  # another workdir to start from when this one has no checkpoint
        }
    )
    config.log = ConfigDict(
        {
            "tensorboard": True,
            # first and last step that the profiler records to WORKDIR/profile; (0, 0) = off
            "profile_steps": (0, 0),
        }
    )
    return config


RULES: dict[str, Rule] = {
    **each(LAYERS, "model.text.frozen_layers", "model.image.frozen_layers"),
    **each(FROM_0, "model.text.lora_rank", "model.image.lora_rank"),
    **each(ABOVE_0, "model.text.lora_alpha", "model.image.lora_alpha", "model.joint_width"),
    **each(ABOVE_0, "model.text.width", "model.text.layers", "model.text.heads"),
    **each(ABOVE_0, "model.image.width", "model.image.layers", "model.image.heads"),
    **each(ABOVE_0, "model.text.vocabulary", "model.image.patch", "data.image_size"),
    **each(ABOVE_0, "optim.lr", "optim.eps", "train.batch_size", "train.epochs"),
    **each(ABOVE_0, "train.log_steps", "train.micro_batches", "train.bucket_batches"),
    **each(ABOVE_0, "train.cache_limit_gib", "checkpoint.keep_newest"),
    **each(ABOVE_0, "eval.batch_size", "eval.sticker_batch_size", "eval.resamples"),
    **each(FROM_0, "optim.warmup_steps", "optim.weight_decay", "optim.clip_norm"),
    **each(FROM_0, "train.max_steps", "train.eval_steps", "train.bucket_tokens"),
    **each(FROM_0, "eval.conversations", "checkpoint.steps", "train.rows"),
    **each(FROM_0, "model.intention_match", "loss.bank_size"),
    "loss.bank_refresh_steps": ABOVE_0,
    "model.attributes": one_of("on", "off"),
    "train.cache_dtype": one_of("same", "float16", "bfloat16"),
    **each(RATE, "model.dropout", "optim.b1", "optim.b2", "train.ema_decay"),
    # [CLS], one token of a turn, [SEP], and the replying speaker's own segment
    "text.context_tokens": at_least(8),
    "text.knowledge_tokens": at_least(2),
    **each(at_least(3), "text.attribute_tokens", "text.name_tokens"),
    "model.text_pool": one_of("cls", "mean", "last"),
    "model.dtype": one_of("float32", "bfloat16"),
    "text.speakers": one_of("prefix", "off"),
    "text.knowledge": one_of("append", "off"),
    "text.emoji": one_of("keep", "words"),
    "data.resize": one_of("squeeze", "crop"),
    "data.frame": one_of("first", "middle", "mean"),
    "optim.name": one_of("adam", "adamw"),
    "optim.schedule": one_of("constant", "cosine", "linear"),
    "log.profile_steps": window,
    "eval.protocol": one_of(*PROTOCOLS),
    "eval.split": one_of(*SPLITS),
}


def _towers_fit(config: ConfigDict) -> Iterator[str]:
    for name in ("text", "image"):
        tower = config.model[name]
        if not tower.source and tower.width % (tower.heads or 1):
            yield (f"model.{name}.width={tower.width} is not divisible by its heads={tower.heads}")
        if tower.lora_rank and tower.frozen_layers:
            yield (
                f"model.{name}.lora_rank freezes the tower's own weights itself; "
                f"leave model.{name}.frozen_layers at 0"
            )
    size, patch = config.data.image_size, config.model.image.patch
    if not config.model.image.source and size % (patch or 1):
        yield (
            f"data.image_size={size} is not divisible by model.image.patch={patch}; "
            f"use {size // patch * patch or patch}"
        )


def _steps_fit(config: ConfigDict) -> Iterator[str]:
    if config.optim.weight_decay and config.optim.name == "adam":
        yield (
            f"optim.weight_decay={config.optim.weight_decay} is not read by optim.name=adam; "
            "use --config.optim.name=adamw, or 0"
        )
    # data=-1 stands for as many as there are, which only the mesh itself can check.
    shards = max(config.mesh.data, 1) * config.mesh.fsdp
    size, parts = config.train.batch_size, config.train.micro_batches * shards
    if parts and size % parts:
        yield (
            f"train.batch_size={size} is not divisible by {parts} (mesh.data * mesh.fsdp * "
            f"train.micro_batches); use {max(size // parts, 1) * parts}"
        )


COMBINATIONS = (_towers_fit, _steps_fit)
