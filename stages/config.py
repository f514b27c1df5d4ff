"""One frozen model per stage, and one for nights: fields and their documentation, and no behaviour.

What a value means is for the code that uses it to say: that code is in the stage's key, and this module is in none.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
Size = Annotated[int, Field(ge=1, le=10**9)]
Count = Annotated[int, Field(ge=0, le=10**9)]
Figure = Annotated[float, Field(ge=0, le=1e30)]
"""What is larger than these, or above 0 and smaller than 1e-30, no engine's arithmetic holds."""


class StageConfig(BaseModel):
    """Frozen; unknown fields refused; not-a-number refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class DownloadConfig(StageConfig):
    """Which text to learn from."""

    corpus: Annotated[str, Field(min_length=1)] = "sample"
    """A name of the catalogue (see `rnnlm corpora`), an http(s) address, the path of a local file, or `-` for standard
    input; it may be packed by gzip, bzip2, xz, zstd or zip. Many documents are a folder, a pattern of paths such as
    `notes/**/*.txt`, a table (`.jsonl`, `.csv`, `.parquet`, `.arrow`), an archive (zip or tar), or a file `*.urls` with
    an address in each line. In an address `${NAME}` is filled in from the environment when it is asked, and what that
    holds enters no key, manifest or log."""
    encoding: Annotated[str, Field(min_length=1)] = "utf-8"
    """What the texts are encoded in, by a name that Python knows, such as `latin-1`, `cp1252` or `utf-16`; of one that
    is something else the error says what it looks like. Parquet and Arrow know theirs."""
    text_column: Annotated[str, Field(min_length=1)] = "text"
    """Of a table, the column whose rows are the documents."""
    order_column: str = ""
    """Of a table, the column of numbers, dates or strings that orders its rows; without one they stay as they stand."""
    headers: tuple[str, ...] = ()
    """Sent to an address, such as `Authorization: Bearer ${TOKEN}`, which is filled in likewise. What is secret comes
    from the environment alone."""
    as_of: str = ""
    """Any label: for an address whose content is not known beforehand, another label fetches it again and keeps what
    was there before. The flow `retrain` labels each night."""


class TokenizeConfig(StageConfig):
    """How the text becomes ids."""

    level: Literal["char", "letter", "word", "bpe"] = "char"
    """One token per character (code point); or, `letter`, the same but for capitals, which are small letters behind a
    shift; or one per word between white space; or, `bpe`, per subword: bytes that often stand together in what the
    vocabulary is fitted on, so that nothing is unknown. No subword reaches across the border of two pieces: line ends,
    and runs of letters, digits, signs or blanks, each with one space before it."""
    vocab_size: Annotated[int, Field(ge=257, le=10**6)] = 4096
    """For `bpe`: tokens of the vocabulary at most, all 256 bytes and `<unk>`, which never comes, among them."""
    normalizer: Literal["book", "lower", "none"] = "lower"
    """`book`: every run of other characters than A-Z becomes one space, lines are stripped, joined and lowercased;
    `lower`: lowercase; `none`: the text as it is. Line ends are read as newlines whatever system wrote them."""
    nfc: bool = False
    """Accents are composed first (Unicode's form NFC), so that é is one character whichever way it was written."""
    line_ends: bool = False
    """For words: every line end is a token as well, so that what the model writes has lines. In the book a line end
    only ends a word."""
    min_freq: Count = 0
    """A token seen less often than this in the text the vocabulary is fitted on becomes `<unk>`; for `bpe` two that
    stand together less often, or only once, are not made one."""
    max_tokens: Count = 0
    """Keep only this many tokens (for `bpe` pieces) from the start of the text, then split them; 0 keeps all. The ends
    of documents do not count."""
    fit_vocab_on: Literal["train", "all"] = "train"
    """The vocabulary is fitted on the training split, or, as in the book, on the whole text."""
    train_share: Share = 0.9
    """Share of the tokens (for `bpe` of the pieces, of which no split cuts one), from the start, that the model trains
    on."""
    valid_share: Share = 0.05
    """Share of the tokens, after the training split, that choices are made on."""
    test_share: Share = 0.05
    """Share of the tokens, at the end, that the final figures are measured on."""
    split: Literal["auto", "content", "order", "position"] = "auto"
    """Of several documents: `content`, each as a whole is in the split that its content and `split_seed` say, so that a
    corpus that grows moves none from one split to another, and copies are in the same; `order`, the first ones are
    trained on and the last ones tested on, by `download.order_column` where there is one; `position`, the splits are
    cut anywhere in all of them together, as in one text. `auto` is `content`, and `position` where a split would have
    no document, or less than a quarter of its share of the text. Shares are then of the documents (`content`) or of
    their bytes (`order`)."""
    split_seed: Count = 0
    """With `content`: another number divides the documents otherwise."""
    end_tokens: bool = True
    """Of several documents: behind each stands a token that ends it. What is read after it is read from nothing, in
    training and elsewhere, and the model learns to end what it writes."""
    near_duplicates: Literal["keep", "drop"] = "keep"
    """Of documents in whole splits: `drop` leaves those out of training that are much like one that is held out; they
    are counted either way. Copies are in one split anyway."""

    @model_validator(mode="after")
    def _fits_together(self) -> TokenizeConfig:
        total = self.train_share + self.valid_share + self.test_share
        if abs(total - 1) > 1e-9:
            raise ValueError(f"train_share, valid_share and test_share must add up to 1, not {total:g}")
        if self.line_ends and (self.level != "word" or self.normalizer == "book"):
            raise ValueError("line_ends needs level=word, for others have them, and no normalizer=book")
        if self.level == "letter" and self.normalizer != "none":
            raise ValueError(f"level=letter needs normalizer=none: {self.normalizer} leaves no capital to be spelt out")
        if self.vocab_size != 4096 and self.level != "bpe":
            raise ValueError(f"vocab_size needs level=bpe: a vocabulary of level={self.level} follows from min_freq")
        if self.train_share == 0:
            raise ValueError("train_share must be more than 0, or there is nothing to train on")
        return self


class TrainConfig(StageConfig):
    """The model and how it is trained. The defaults are the book's, but for the epochs."""

    cell: Literal["rnn", "gru", "lstm"] = "rnn"
    """The recurrent cell."""
    activation: Literal["relu", "tanh"] = "relu"
    """Of the cell `rnn`, where `relu` is the book's; `gru` and `lstm` have their own."""
    hidden_size: Size = 256
    """Hidden units per layer."""
    layers: Annotated[int, Field(ge=1, le=100)] = 1
    """Recurrent layers, each fed by the one below."""
    embedding_size: Count = 0
    """Each token goes in as a learnt vector of this size; 0 is one-hot, as in the book."""
    tie_weights: bool = False
    """The output layer uses the embedding's weights; `embedding_size` has to equal `hidden_size` then."""
    initializer: Literal["normal", "uniform", "forgetful"] = "normal"
    """First weights: `normal`, Normal(0, 0.01), the book's; `uniform`, ±1/√hidden_size and embeddings ±0.1, for several
    layers or a large embedding; `forgetful`, where inputs weigh 2 and 5 times that, and an LSTM forgets at first."""
    input_dropout: Dropout = 0.0
    """Share of what goes into the first layer that is dropped while training."""
    hidden_dropout: Dropout = 0.0
    """The same between one layer and the next."""
    output_dropout: Dropout = 0.0
    """The same of what the last layer gives to the output layer."""
    weight_dropout: Dropout = 0.0
    """The same of the recurrent weights (DropConnect), anew in each minibatch."""
    variational: bool = True
    """What is dropped of inputs, layers and outputs stays dropped over all steps of a minibatch; `false` draws anew
    in each step."""
    batch_size: Size = 32
    """Sequences per minibatch."""
    num_steps: Size = 35
    """Time steps per minibatch: where backpropagation through time is truncated."""
    bptt_keep: Annotated[float, Field(ge=0.001, le=1)] = 1.0
    """1 is regular truncation, after `num_steps`. Below 1 it is randomised: in each step the gradient goes on into the
    past with this probability, and is divided by it. On average that is the gradient of regular truncation, so of
    `num_steps` and no longer past, and only before `clip_norm`: clipping shortens long gradients more than short ones,
    and where it halves them the average was off by 1 to 50 %."""
    partition: Literal["sequential", "random"] = "sequential"
    """`sequential`: neighbouring minibatches are neighbours in the text and the state is carried, detached;
    `random`: subsequences are shuffled and the state starts from zero each time."""
    epochs: Size = 50
    """Passes over the training split. More of them continue from the checkpoint of fewer."""
    max_tokens: Annotated[int, Field(ge=0, le=10**15)] = 0
    """Training ends after so many tokens, to the nearest minibatch, where `epochs` passes are more: for a text of which
    one pass takes longer than a night. It has `epochs` even parts then, wherever a pass ends; the history has a row for
    each, and `patience` and the schedule count these as epochs. A tenth as many tokens as a part has, from the start of
    the validation split, are measured after each. As many times more of both fields continue. 0 sets no bound."""
    patience: Count = 0
    """Training ends when the validation loss has not improved for so many epochs, and the best weights are kept; 0
    trains all epochs and keeps the last."""
    optimizer: Literal["sgd", "momentum", "adam", "adamw"] = "sgd"
    """`sgd`, the book's; `momentum` of 0.9; `adam` with decay rates 0.9 and 0.999 and an ε of 1e-8 that, other than in
    torch, is added before the bias is corrected; `adamw`, the same with weight decay apart from the gradient."""
    learning_rate: Annotated[float, Field(ge=1e-30, le=1e30)] = 1.0
    """The optimizer's step size, at its highest."""
    schedule: Literal["constant", "step", "cosine", "plateau"] = "constant"
    """How the learning rate changes: not at all; `step`, times `decay_factor` every `decay_epochs`; `cosine`, down to
    zero over `decay_epochs`; `plateau`, times `decay_factor` whenever the validation loss has not improved for
    `decay_epochs`."""
    warmup_epochs: Figure = 0.0
    """The learning rate rises to its height over so many epochs, or a part of one, whatever the schedule."""
    decay_epochs: Count = 0
    """See `schedule`. 0 lets a `cosine` end with the last epoch; then more epochs are another training, from the
    start."""
    decay_factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """See `schedule`."""
    weight_decay: Figure = 0.0
    """Pull of all weights but the biases towards zero: an L2 penalty, for `adamw` decoupled from the gradient."""
    clip_norm: Figure = 1.0
    """The gradient is scaled down to this L2 norm when it is longer; 0 never clips."""
    averaging: Figure = 9.0
    """The published weights are an average over the steps that favours the late ones: at 9 most of it is the last tenth
    of them. 0 publishes the last step's."""
    networks: Annotated[int, Field(ge=1, le=100)] = 1
    """Networks that are trained one after another, from seeds `seed`, `seed` + 1, …; the model says the mean of their
    probabilities. In the same time several that are trained for less can be better than one. Each is what one alone is
    from its seed, and shares its checkpoints."""
    ngram: Annotated[int, Field(ge=0, le=16)] = 0
    """An n-gram of this order stands beside it, what followed each ngram - 1 tokens of the training split (modified
    Kneser-Ney); both are mixed in shares that the validation split chooses, and then the n-gram counts that as well. On
    small texts the mixture is better than either. 0 leaves it out. Another order trains no network again."""
    ngram_min_count: Size = 1
    """N-grams of three and more tokens that come less often are left out: less memory, little lost on large texts."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seeds the initial weights, the minibatches and what is dropped."""
    engine: Literal["auto", "mxnet", "bptt", "torch"] = "auto"
    """What computes: `mxnet`, the chapter's own; `bptt`, its derivation written out in NumPy, on the CPU only; `torch`,
    for current GPUs. `auto` is one that can use a GPU, where there is one and `device` lets it; else `mxnet` if it is
    installed, else `bptt`. The cache key has what that comes down to."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|gpu(:\d{1,4})?)$")] = "auto"
    """`auto` (a GPU that the engine can use, else the CPU), `cpu`, `gpu` or `gpu:N`. Only CPU or GPU is in the cache
    key."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What the recurrent layers compute with while they are trained. `bfloat16`, which only the engine `torch` has,
    keeps 8 bits of each number that goes into a product: up to twice as fast on CPUs that multiply such numbers
    (AVX-512 BF16, AMX). Weights, their updates and the output layer stay `float32`, and so does all that measures."""

    @model_validator(mode="after")
    def _fits_together(self) -> TrainConfig:
        if self.precision == "bfloat16" and self.engine != "torch":
            raise ValueError(f"precision=bfloat16 needs engine=torch, not {self.engine}")
        if self.tie_weights and self.embedding_size != self.hidden_size:
            raise ValueError(
                f"tie_weights needs an embedding_size of hidden_size, {self.hidden_size}, not {self.embedding_size}"
            )
        if self.networks > 1 and self.patience:
            raise ValueError(f"patience ends one training, not {self.networks}: set it to 0, or networks to 1")
        if self.ngram == 0 and self.ngram_min_count != 1:
            raise ValueError("ngram_min_count needs an ngram: set its order, 6 for characters or 3 for words, say")
        if 0 < self.clip_norm < 1e-30:
            raise ValueError(f"clip_norm has to be 1e-30 or more, or 0, which never clips; not {self.clip_norm:g}")
        if self.schedule in ("step", "plateau") and not self.decay_epochs:
            raise ValueError(f"schedule={self.schedule} needs decay_epochs of 1 or more")
        if self.schedule == "plateau" and self.patience and self.patience <= self.decay_epochs:
            raise ValueError(f"patience has to be more than decay_epochs, {self.decay_epochs}, or the rate never falls")
        fewest = self.epochs * self.batch_size * self.num_steps
        if 0 < self.max_tokens < fewest:
            raise ValueError(
                f"max_tokens={self.max_tokens} is less than a minibatch for each of its parts: set at least {fewest} "
                "(epochs × batch_size × num_steps), or fewer epochs, which is how many parts it has"
            )
        return self


class EvaluateConfig(StageConfig):
    """What the report shows beside the metrics."""

    prefixes: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Texts that the model continues; where none is given, the first words of its own text."""
    length: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    """Tokens per continuation."""
    temperature: Figure = 0.7
    """Each prefix is continued greedily, at this temperature and at 1, as the model says."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seeds the sampled continuations."""
    window: Count = 0
    """Also measure with the state reset every so many tokens, as models of a fixed context are measured; 0 does not."""


class PromotionConfig(StageConfig):
    """What a night asks of a corpus before it trains on it, and of a model before that becomes the champion."""

    largest_loss: Share = 0.5
    """A corpus is refused that has lost more than this share of its characters against the champion's."""
    largest_surprise: Figure = 0.5
    """Bits per character of a whole corpus: it is refused where what is new in it costs the champion so much more than
    its own test text does. What the champion was trained on adds nothing."""
    smallest_gain: Figure = 0.02
    """Bits per character: a model is promoted when, on today's test text, the lower end of the interval of its gain is
    above this, and no other text speaks against it. With less, seeds of one recipe take turns; with more, what is
    better by 0.05 waits (`flows/README.md` has the table)."""
    largest_setback: Figure = 0.02
    """Bits per character that a model may lose on the champion's own test text and on the reference: it is not promoted
    where it loses more, if that is more than chance as well (the interval of its gain lies below zero)."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.98
    """Of the interval: Student's t over blocks of the text. At 0.98 its lower end is a bound at 99 %."""
    block_length: Size = 1000
    """Characters of a block, at least, where the text is long enough for `fewest_blocks` of them."""
    fewest_blocks: Annotated[int, Field(ge=2, le=10**6)] = 5
    """The text is cut into so many blocks at least, however short."""
    most_blocks: Annotated[int, Field(ge=2, le=10**6)] = 20
    """And into so many at most: a longer text has longer ones. Fewer blocks are cut into parts, so many at least, which
    say when a few blocks agree by chance."""
    fewest_characters: Size = 2000
    """With fewer unseen characters than this, a text says nothing about two models, nor the champion's own test text
    about how surprising a corpus is."""

    @model_validator(mode="after")
    def _blocks_fit(self) -> PromotionConfig:
        if self.most_blocks < self.fewest_blocks:
            raise ValueError(
                f"most_blocks, {self.most_blocks}, must not be less than fewest_blocks, {self.fewest_blocks}"
            )
        return self


class RunConfig(StageConfig):
    """The configuration of one run: a section per stage, and one for nights."""

    download: DownloadConfig = DownloadConfig()
    tokenize: TokenizeConfig = TokenizeConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    promotion: PromotionConfig = PromotionConfig()
    """Of nights; no stage reads it, so it is in no key."""
