"""Janus' sequences, chat turns, drawing and image tokenizer: the rules that the contract tests cannot know."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil

from reca_core.contracts.errors import BadInput, CheckpointRefused
from reca_core.models.grouping import in_order_by_length
from reca_core.models.janus import sampler, sequence, vq
from reca_core.models.janus.chat import BOI_TAG, IMAGE_TAG, PAD_TAG, ChatFormat
from reca_core.models.janus.pictures import PictureTransform
from reca_core.models.janus.smallest import TEMPLATES, WORDS
from reca_core.models.janus.word_tokenizer import word_tokenizer
from reca_core.models.pictures import to_pictures
from reca_core.models.unified import Dialogue, Images, Target
from tests.reca_core.tiny_janus import tiny_janus, tiny_pictures

PICTURE_TOKENS = 4


@pytest.fixture
def chat() -> ChatFormat:
    return ChatFormat(word_tokenizer(WORDS), PICTURE_TOKENS)


def spoken(chat: ChatFormat, row: list[int]) -> list[str]:
    return chat.tokenizer.convert_ids_to_tokens(row)


def test_a_drawing_prompt_ends_with_begin_of_image(chat: ChatFormat) -> None:
    (row,) = chat.drawing_prompts(["a red circle"])
    words = ["<｜begin▁of▁sentence｜>", "<|User|>", "a", "red", "circle", "<|Assistant|>", BOI_TAG]
    assert spoken(chat, row) == words


def test_the_reca_prefix_shows_the_picture_before_the_instruction(chat: ChatFormat) -> None:
    (row,) = chat.redrawing_prompts(["draw it"])
    picture = [BOI_TAG, *[IMAGE_TAG] * PICTURE_TOKENS, "<end_of_image>"]
    before, after = ["<｜begin▁of▁sentence｜>", "<|User|>"], ["draw", "it", "<|Assistant|>", BOI_TAG]
    assert spoken(chat, row) == [*before, *picture, *after]


def test_training_answers_continue_what_inference_asks(chat: ChatFormat) -> None:
    prompt, answer = chat.question_prompts(["what is this ?"], [True])[0], chat.answers(["a circle"])[0]
    assert spoken(chat, prompt)[-1] == "<|Assistant|>"
    assert spoken(chat, answer) == ["a", "circle", "<｜end▁of▁sentence｜>"]
    assert chat.reply(answer) == "a circle"


@pytest.mark.parametrize(
    ("pro", "turn"),
    [(True, "<|User|>: {}\n\n<|Assistant|>:"), (False, "User: {}\n\nAssistant:")],
    ids=["Janus-Pro", "Janus"],
)
def test_without_a_template_turns_are_written_as_deepseek_writes_them(pro: bool, turn: str) -> None:
    tokenizer = word_tokenizer(WORDS)
    tokenizer.chat_template = None
    if not pro:
        vocabulary = tokenizer.get_vocab()
        tokenizer.get_vocab = lambda: {word: i for word, i in vocabulary.items() if not word.startswith("<|")}
    chat = ChatFormat(tokenizer, PICTURE_TOKENS)
    before, after = turn.split("{}")
    assert (chat._turns[False].before, chat._turns[False].after) == (before, after)
    assert chat._turns[True].before == f"{before}{IMAGE_TAG}\n"
    assert chat._answer.before == " "


def test_ids_are_read_from_the_tokenizer_whatever_their_numbers() -> None:
    few, many = ChatFormat(word_tokenizer(["a"]), 1).ids, ChatFormat(word_tokenizer(WORDS), 1).ids
    tokenizer = word_tokenizer(WORDS)
    assert many.pad == tokenizer.convert_tokens_to_ids(PAD_TAG)
    assert few.boi == many.boi
    tokenizer.pad_token = tokenizer.eos_token  # as DeepSeek's files have it; the pad tag still is what pads
    assert ChatFormat(tokenizer, 1).ids.pad == many.pad


def test_a_tokenizer_without_a_structural_token_is_refused_by_name() -> None:
    tokenizer = word_tokenizer(WORDS)
    vocabulary = tokenizer.get_vocab()
    tokenizer.get_vocab = lambda: {word: i for word, i in vocabulary.items() if word != BOI_TAG}
    with pytest.raises(CheckpointRefused, match=BOI_TAG):
        ChatFormat(tokenizer, 1)


@pytest.mark.parametrize("template", ["{{ messages[0].role }}", "{{ messages[0].content[-1].text }}"])
def test_a_template_that_loses_text_or_picture_is_refused(template: str) -> None:
    tokenizer = word_tokenizer(WORDS)
    tokenizer.chat_template = template
    with pytest.raises(CheckpointRefused, match="chat template"):
        ChatFormat(tokenizer, 1)


def test_a_caption_cannot_smuggle_in_a_picture(chat: ChatFormat) -> None:
    clean, dirty = chat.drawing_prompts(["a circle", f"a {IMAGE_TAG}{BOI_TAG} circle"])
    assert clean == dirty


def test_dropped_text_becomes_pad_and_the_picture_stays(chat: ChatFormat) -> None:
    (row,) = chat.redrawing_prompts(["draw it"])
    (dropped,) = sequence.without_text([row], [True], chat.ids)
    kept = {chat.ids.boi, chat.ids.eoi, chat.ids.image}
    assert len(dropped) == len(row)
    assert (dropped[0], dropped[-1]) == (row[0], row[-1])
    assert [d for d, t in zip(dropped, row, strict=True) if t in kept] == [t for t in row if t in kept]
    assert {d for d, t in zip(dropped[1:-1], row[1:-1], strict=True) if t not in kept} == {chat.ids.pad}
    assert sequence.without_text([row], [False], chat.ids) == [row]


def test_the_null_prompt_keeps_first_and_last_token_only(chat: ChatFormat) -> None:
    (row,) = chat.redrawing_prompts(["draw it"])
    (null,) = sequence.null_prompts([row], chat.ids)
    assert null == [row[0], *[chat.ids.pad] * (len(row) - 2), row[-1]]


def test_a_dropped_caption_is_the_null_prompt(chat: ChatFormat) -> None:
    (row,) = chat.drawing_prompts(["a red circle"])
    assert sequence.without_text([row], [True], chat.ids) == sequence.null_prompts([row], chat.ids)


def test_padding_changes_no_loss() -> None:
    model = tiny_janus()
    images = model.prepare(tiny_pictures(2))
    short, long = Dialogue("what ?", "a circle", 0), Dialogue(" ".join(WORDS[:20]), "red", 1)
    alone = [model.image_to_text_loss(images, [one]).total.item() for one in (short, long)]
    assert model.image_to_text_loss(images, [short, long]).total.item() == pytest.approx(sum(alone), rel=1e-5)


def test_answers_are_counted_per_token_with_their_end() -> None:
    model = tiny_janus()
    loss = model.text_loss([Dialogue("what ?", "a red circle"), Dialogue("what ?", "red")])
    assert loss.count.item() == (3 + 1) + (1 + 1)


def test_text_questions_refuse_pictures() -> None:
    with pytest.raises(BadInput, match="image_to_text_loss"):
        tiny_janus().text_loss([Dialogue("what ?", "red", 0)])


def test_a_target_without_codes_is_refused() -> None:
    model = tiny_janus()
    images = model.prepare(tiny_pictures(1))
    condition = model.condition(model.understand(images), TEMPLATES[:1], torch.tensor([False]))
    with pytest.raises(BadInput, match="codes"):
        model.reconstruction_loss(condition, Target(), None)  # type: ignore[arg-type]


def test_greedy_drawing_equals_the_library_s_own_loop() -> None:
    model = tiny_janus()
    prompts = model.chat.drawing_prompts(["a red circle", "a blue square"])
    prefix = sequence.embed_rows(model.network, prompts, model.chat.ids).embeddings
    null = sequence.embed_rows(model.network, sequence.null_prompts(prompts, model.chat.ids), model.chat.ids)
    ours = sampler.draw_tokens(
        model.network, prefix, null.embeddings, tokens=16, guidance_scale=5.0, temperature=1.0,
        noise=lambda classes: torch.ones(2, classes),
    )  # fmt: skip
    ids = torch.tensor(prompts)
    theirs = model.network.generate(
        inputs=ids, attention_mask=torch.ones_like(ids), generation_mode="image", guidance_scale=5.0, do_sample=False
    )
    assert torch.equal(ours, theirs)


def test_greedy_text_equals_the_library_s_own_loop() -> None:
    model = tiny_janus()
    (prompt,) = model.chat.question_prompts(["what is this ?"], [False])
    prefix = sequence.embed_rows(model.network, [prompt], model.chat.ids).embeddings
    (ours,) = sampler.greedy_text(model.network, prefix, end=model.chat.ids.eos, max_tokens=6)
    ids = torch.tensor([prompt])
    theirs = model.network.generate(inputs=ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False)
    assert ours == [token for token in theirs[0, len(prompt) :].tolist() if token != model.chat.ids.eos]


def test_the_race_draws_from_the_softmax() -> None:
    logits = torch.tensor([0.5, -1.0, 2.0, 0.0])
    noise = torch.empty(20_000, 4).exponential_(generator=torch.Generator().manual_seed(0))
    drawn = sampler.race(logits.expand(20_000, 4), noise)
    shares = torch.bincount(drawn, minlength=4) / len(drawn)
    assert torch.allclose(shares, logits.softmax(0), atol=0.01)


def test_a_draw_of_zero_wins_without_a_nan() -> None:
    assert sampler.race(torch.tensor([[-50.0, 50.0]]), torch.tensor([[0.0, 1.0]])).tolist() == [1]
    assert sampler.race(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]])).tolist() == [0]


def nearest_by_loop(model: vq.JanusVQVAE, pixels: Tensor) -> list[int]:
    """Cosine similarity with every codebook row, one grid cell after another, row-major."""
    grid = vq.pre_quantised(model, pixels)[0]
    cells = [grid[:, y, x] for y in range(grid.shape[1]) for x in range(grid.shape[2])]
    book = model.quantize.embedding.weight
    return [int(torch.cosine_similarity(book, cell[None]).argmax()) for cell in cells]


@torch.no_grad()
def test_codes_are_nearest_by_angle_not_by_distance() -> None:
    model = tiny_janus().network.model.vqmodel
    model.quantize.embedding.weight.mul_(torch.linspace(0.1, 10, 64)[:, None])
    pixels = torch.rand(1, 3, 16, 16) * 2 - 1
    ours = vq.encode_pixels(model, pixels)[0].tolist()
    assert ours == nearest_by_loop(model, pixels)
    assert ours != model.encode(pixels).image_tokens.tolist()  # the library's: plain distance


def test_codes_and_pictures_are_the_same_under_autocast() -> None:
    model, pixels = tiny_janus().network.model.vqmodel, torch.rand(2, 3, 16, 16) * 2 - 1
    codes = vq.encode_pixels(model, pixels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(vq.encode_pixels(model, pixels), codes)
        decoded = vq.decode_codes(model, codes)
    assert decoded.dtype == torch.float32


def test_the_autoencoder_learns_two_pictures() -> None:
    model = tiny_janus()
    images = model.prepare(tiny_pictures(2))
    optimizer = torch.optim.AdamW(model.network.model.vqmodel.parameters(), lr=3e-3)
    seen = []
    for _ in range(40):
        terms = model.tokenizer_loss(images)
        optimizer.zero_grad()
        sum(term.mean() for term in terms.values()).backward()
        optimizer.step()
        seen.append(terms["pixel"].mean().item())
    assert seen[-1] < 0.5 * seen[0]


def test_reca_learns_one_picture() -> None:
    model = tiny_janus()
    names = model.trainable_names("post")
    trained = [p for name, p in model.network.named_parameters() if name in names]
    images = model.prepare(tiny_pictures(1))
    optimizer, seen = torch.optim.AdamW(trained, lr=3e-3), []
    for _ in range(30):
        condition = model.condition(model.understand(images), TEMPLATES[:1], torch.tensor([False]))
        loss = model.reconstruction_loss(condition, model.encode_target(images), None).mean()  # type: ignore[arg-type]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    assert seen[-1] < 0.2 * seen[0]


def test_whole_pictures_reach_the_encoder_as_the_library_prepares_them() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).resize((450, 200), Image.Resampling.BICUBIC)
    ours = PictureTransform(96, 96).whole([picture]).understanding
    processor = JanusImageProcessorPil(size={"height": 96, "width": 96}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    theirs = torch.as_tensor(np.asarray(processor(picture)["pixel_values"]))
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 2.5 / 255  # a level, as both round after resizing


def test_redrawing_sees_and_targets_the_same_square() -> None:
    wide = Image.new("RGB", (48, 16), "red")
    wide.paste(Image.new("RGB", (16, 16), "blue"), (16, 0))
    images = PictureTransform(16, 16).squares([wide])
    assert torch.equal(images.understanding, images.target)
    assert to_pictures(images.target)[0].getpixel((0, 0)) == (0, 0, 255)


def test_the_view_undoes_the_normalisation() -> None:
    transform = PictureTransform(16, 16, mean=(0.48, 0.45, 0.4), std=(0.27, 0.26, 0.28))
    (picture,) = tiny_pictures(1)
    (seen,) = transform.view(transform.squares([picture]))
    assert np.abs(np.asarray(seen, int) - np.asarray(picture, int)).max() <= 1


def test_grouping_keeps_the_order_and_never_mixes_lengths() -> None:
    rows = ["aa", "b", "cc", "dd", "e", "fff"] * 30
    batches: list[list[str]] = []

    def make(batch: list[str]) -> list[str]:
        batches.append(batch)
        return [row.upper() for row in batch]

    made = list(in_order_by_length(rows, length=len, batch=2, make=make))
    assert made == [row.upper() for row in rows]
    assert all(len({len(row) for row in batch}) == 1 and len(batch) <= 2 for batch in batches)


def test_images_keep_their_place_among_text_only_rows() -> None:
    model = tiny_janus()
    images = model.prepare(tiny_pictures(3))
    first, second = Dialogue("what ?", "red", 2), Dialogue("what ?", "red", 0)
    one = model.image_to_text_loss(images, [first, Dialogue("what ?", "red"), second]).total
    picked = Images(images.understanding[[2, 0]], images.target[[2, 0]])
    parts = model.image_to_text_loss(picked, [Dialogue("what ?", "red", 0), Dialogue("what ?", "red", 1)]).total
    assert one.item() == pytest.approx((parts + model.text_loss([Dialogue("what ?", "red")]).total).item(), rel=1e-5)
