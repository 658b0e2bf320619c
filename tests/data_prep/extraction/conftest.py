"""Tiny random checkpoints of the very classes, built here: nothing is downloaded."""

import json
import os

import pytest
import transformers
from fixtures.chat_server import Server
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

torch = pytest.importorskip("torch", reason="extraction runs models by torch")
# Tiny models gain nothing by threads, and lose much where others use the cores.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}IMAGE{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN_MARK = "<|vision_start|><|image_pad|><|vision_end|>"
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"]
TOKENS += ["<|image_pad|>", "<|video_pad|>", "<image>"]
TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
TEXT |= {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 4096}
SEQ = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
SEQ |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
SEQ |= {"max_position_embeddings": 512, "pad_token_id": 0, "eos_token_id": 2, "bos_token_id": 1}


def byte_tokenizer(specials, **names):
    """A byte-level tokenizer: every text has tokens, whatever its language."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        ["a"], trainers.BpeTrainer(special_tokens=list(specials), initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, **names)


def ending(model, bias=3.0):
    """Makes the end of a phrase likely, so that random beams do end."""
    torch.manual_seed(0)
    with torch.no_grad():
        model.final_logits_bias[0, model.config.eos_token_id] = bias
    return model


@pytest.fixture(scope="session")
def comet_dir(tmp_path_factory):
    """COMET-BART's class, random."""
    directory = tmp_path_factory.mktemp("models") / "comet"
    tokenizer = byte_tokenizer(
        [
            "<pad>",
            "<s>",
            "</s>",
            "<unk>",
            "[GEN]",
            "xIntent",
            "xNeed",
            "xWant",
            "xEffect",
            "xReact",
        ],
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    tokenizer.save_pretrained(directory)
    torch.manual_seed(0)
    config = transformers.BartConfig(
        vocab_size=len(tokenizer), decoder_start_token_id=2, forced_eos_token_id=None, **SEQ
    )
    config.init_std = 0.5
    ending(transformers.BartForConditionalGeneration(config)).save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def m2m_dir(tmp_path_factory):
    """M2M100, random, with its own tokenizer class over a learnt sentencepiece model."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = tmp_path_factory.mktemp("m2m")
    sentences = folder / "text.txt"
    sentences.write_text("\n".join(["hello there my friend", "你好 我的 朋友", "good night"] * 40))
    sentencepiece.SentencePieceTrainer.train(
        input=str(sentences),
        model_prefix=str(folder / "spm"),
        vocab_size=60,
        model_type="bpe",
        minloglevel=2,
    )
    core = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spm.model"))
    pieces = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces += [core.id_to_piece(i) for i in range(3, core.get_piece_size())]
    vocabulary = folder / "vocab.json"
    vocabulary.write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    tokenizer = transformers.M2M100Tokenizer(str(vocabulary), str(folder / "spm.model"))
    directory = folder / "m2m"
    tokenizer.save_pretrained(directory)
    torch.manual_seed(0)
    config = transformers.M2M100Config(
        vocab_size=len(pieces) + 120,  # the languages' tokens follow the pieces
        decoder_start_token_id=2,
        **SEQ | {"pad_token_id": 1, "bos_token_id": 0},
    )
    model = transformers.M2M100ForConditionalGeneration(config)
    model.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def nllb_dir(tmp_path_factory):
    """NLLB, random: M2M100's network with a tokenizer class of its own, and 202 languages."""
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz你好我的朋友"]
    tokenizer = transformers.NllbTokenizer(
        vocab={piece: i for i, piece in enumerate(vocabulary)}, merges=[], src_lang="eng_Latn"
    )
    directory = tmp_path_factory.mktemp("models") / "nllb"
    tokenizer.save_pretrained(directory)
    torch.manual_seed(0)
    config = transformers.M2M100Config(
        vocab_size=len(tokenizer),
        decoder_start_token_id=2,
        **SEQ | {"pad_token_id": 1, "bos_token_id": 0},
    )
    transformers.M2M100ForConditionalGeneration(config).save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def marian_dir(tmp_path_factory):
    """MarianMT's class, random, with a byte tokenizer."""
    directory = tmp_path_factory.mktemp("models") / "marian"
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = byte_tokenizer(["<pad>", "<s>", "</s>", "<unk>"], **names)
    tokenizer.save_pretrained(directory)
    config = transformers.MarianConfig(
        vocab_size=len(tokenizer),
        decoder_start_token_id=0,
        forced_eos_token_id=None,
        decoder_vocab_size=len(tokenizer),
        **SEQ,
    )
    torch.manual_seed(0)
    ending(transformers.MarianMTModel(config)).save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def vision_dir(tmp_path_factory):
    """A function that builds a tiny model that sees, by name; each once."""
    built = {}

    def build(name):
        if name not in built:
            directory = tmp_path_factory.mktemp("models") / name
            {"llava": _llava}.get(name, _qwen)(directory, name)
            built[name] = directory
        return built[name]

    return build


@pytest.fixture(scope="session")
def llm_dir(tmp_path_factory):
    """A language model with a chat template, random."""
    directory = tmp_path_factory.mktemp("models") / "llm"
    tokenizer = byte_tokenizer(TOKENS, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(directory)
    torch.manual_seed(0)
    config = transformers.Qwen2Config(vocab_size=len(tokenizer), **TEXT, eos_token_id=2)
    transformers.Qwen2ForCausalLM(config).save_pretrained(directory)
    return directory


def _qwen(directory, name):
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    tokenizer = byte_tokenizer(TOKENS, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = CHAT.replace("IMAGE", QWEN_MARK)
    tokenizer.save_pretrained(directory)
    patch = 16 if name == "Qwen3VL" else 14
    Qwen2VLImageProcessorPil(
        min_pixels=4 * patch**2, max_pixels=16 * patch**2, patch_size=patch
    ).save_pretrained(directory)
    ids = dict(zip(TOKENS, tokenizer.convert_tokens_to_ids(TOKENS), strict=True))
    rope = {"type": "default", "rope_type": "default", "mrope_section": [1, 1, 2]}
    text = TEXT | {
        "vocab_size": len(tokenizer),
        "rope_parameters": rope | {"rope_theta": 1e4},
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    if name == "Qwen3VL":
        text["head_dim"] = 8
    config_class = getattr(
        transformers, VISION_MODELS[name].replace("ForConditionalGeneration", "Config")
    )
    config = config_class(
        text_config=text,
        vision_config=VISION_SHAPES[name],
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    torch.manual_seed(0)
    getattr(transformers, VISION_MODELS[name])(config).save_pretrained(directory)


def _llava(directory, name):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokenizer = byte_tokenizer(TOKENS, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    square = {"height": 28, "width": 28}
    images = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size=square)
    processor = transformers.LlavaProcessor(
        images,
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT.replace("IMAGE", "<image>"),
    )
    processor.save_pretrained(directory)
    vision = transformers.CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
    )
    text = transformers.LlamaConfig(vocab_size=len(tokenizer), **TEXT, eos_token_id=2)
    config = transformers.LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        image_seq_length=4,
    )
    torch.manual_seed(0)
    transformers.LlavaForConditionalGeneration(config).save_pretrained(directory)


VISION_MODELS = {
    "Qwen2VL": "Qwen2VLForConditionalGeneration",
    "Qwen2_5_VL": "Qwen2_5_VLForConditionalGeneration",
    "Qwen3VL": "Qwen3VLForConditionalGeneration",
}
VISION_SHAPES = {
    "Qwen2VL": {"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 1},
    "Qwen2_5_VL": {
        "depth": 1,
        "hidden_size": 16,
        "out_hidden_size": 16,
        "num_heads": 2,
        "intermediate_size": 16,
        "fullatt_block_indexes": [0],
    },
    "Qwen3VL": {
        "depth": 1,
        "hidden_size": 16,
        "out_hidden_size": 16,
        "num_heads": 2,
        "intermediate_size": 16,
        "deepstack_visual_indexes": [0],
        "num_position_embeddings": 16,
    },
}


@pytest.fixture
def serve():
    """Starts servers that answer as they are told."""
    servers = []

    def start(answer):
        servers.append(Server(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
