"""What the recipes of several methods have in common."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator


class Part(BaseModel):
    """A mapping in a recipe: it never changes, and knows each of its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Lora(Part):
    """Low-rank adapters (Hu et al. 2021) instead of training every weight."""

    r: int = Field(16, ge=1)
    """Rank."""
    alpha: int = Field(32, ge=1)
    """Scale: the update is multiplied by alpha / r."""
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: str | tuple[str, ...] = "all-linear"
    """Names of the layers that get adapters."""
    dora: bool = False
    """Also learn the length of each weight column apart from its direction (Liu et al. 2024)."""


class Prefix(Part):
    """A learnt prefix of keys and values before every layer's own (Li and Liang 2021)."""

    tokens: int = Field(ge=1)
    """How many positions."""


class Demonstrations(Part):
    """Dialogues of the made-up support desk, for use without any data."""

    source: Literal["support-desk"]
    n: int = Field(800, ge=1)
    seed: int = 0
    quality: tuple[float, float] = (2.0, 2.0)
    """Beta distribution that an answer's quality is drawn from."""


class Architecture(Part):
    """A small Llama."""

    hidden_size: int = 128
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    intermediate_size: int = 384
    max_position_embeddings: int = 512
    """Tokens."""


class Speed(Part):
    """What makes a training faster and changes no result; a model that it does not suit is trained
    without, and the run says why."""

    padding_free: bool = True
    """Compute no padding, and predictions only where they are learnt from (align.speed.packing)."""
    share_prompts: bool = True
    """The same, and what rows of a batch begin with alike once: a pair's prompt above all."""
    keep_reference: bool = True
    """Keep the log-probabilities of DPO's reference for later runs (align.speed.reference)."""


class Hardware(Part):
    """The machine that a recipe is written for."""

    device: Literal["cpu", "cuda"] = "cuda"
    count: int = Field(1, ge=1)
    """How many of them."""
    memory_gib: float | None = Field(None, gt=0)
    """Of each."""


class ModelShapes(Part):
    """Sizes of a decoder, by which its memory can be counted without having it."""

    parameters: int | None = Field(None, ge=1)
    """As its card says. Left out: counted from the rest, which leaves biases out."""
    hidden: int = Field(ge=1)
    layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    kv_heads: int | None = Field(None, ge=1)
    """Heads of keys and values. Left out: as many as `heads`."""
    head_size: int | None = Field(None, ge=1)
    """Left out: hidden / heads."""
    intermediate: int = Field(ge=1)
    vocab: int = Field(ge=1)
    tied: bool = False
    """Whether the output layer is the embedding."""

    @property
    def queries_width(self) -> int:
        """Of all heads together."""
        return self.heads * (self.head_size or self.hidden // self.heads)

    @property
    def keys_width(self) -> int:
        """Of all heads of keys together."""
        return (self.kv_heads or self.heads) * (self.head_size or self.hidden // self.heads)


class SetShapes(Part):
    """How large a training set is."""

    rows: int = Field(ge=1)
    tokens: int | None = Field(None, ge=1)
    """Of all rows together, by which packing counts its steps."""


class Shapes(Part):
    """Sizes of what is not at hand yet."""

    model: ModelShapes | None = None
    """As of the recipe's own model."""
    set: SetShapes | None = None


class EarlyStopping(Part):
    """End a training that learns nothing more, and keep the model that was best."""

    patience: int = Field(3, ge=1)
    """Evaluations without an improvement."""
    min_improvement: float = Field(0.0, ge=0)
    """Of the held-out figure; less is none."""


class Recipe(Part):
    """What every training has."""

    held_out: ClassVar[str] = "eval_loss"
    """The method's own figure on the rows that are held out, by which the best model is found."""
    higher_is_better: ClassVar[bool] = False
    """Of `held_out`."""

    method: str
    seed: int = 0
    """Of weights, order and dropout."""
    max_length: int = Field(512, ge=8)
    """Tokens of prompt and completion together; longer rows are cut."""
    batch_size: int | None = Field(None, ge=1)
    """Rows of one optimizer step over all processes; how many batches make one is found. Left out:
    `trainer.per_device_train_batch_size` by `trainer.gradient_accumulation_steps` by processes."""
    early_stopping: EarlyStopping | None = None
    keep_checkpoints: bool = False
    """Keep what is left of checkpoints at the end as models of their own, `checkpoint-N/` in the
    run: how often they are taken, and how many stay, the trainer's `save_` arguments say."""
    report_to: tuple[Literal["trackio", "tensorboard", "mlflow", "wandb"], ...] = ()
    """Where else the figures go; all stay on this machine (align.training.trackers)."""
    launch: int | str | None = None
    """As the option `--launch`: a number of processes, or an accelerate configuration."""
    sweep: str | None = None
    """Which trial of which sweep this is: `handloom sweep` says so in the recipes that it writes,
    since it may stop them early."""
    trainer: dict[str, Any] = {}
    """Arguments of the trainer's configuration class, by its own names."""

    @field_validator("report_to", mode="before")
    @classmethod
    def _one_alone(cls, trackers: Any) -> Any:
        return (trackers,) if isinstance(trackers, str) else trackers

    def identity(self, *leave_out: str, mode: Literal["python", "json"] = "python") -> Any:
        """Its keys as the settings of a run by which it is found again.

        A key that earlier releases did not have is there only where it is set: their runs are
        found too.
        """
        keys = self.model_dump(mode=mode, exclude=set(leave_out))
        if not self.keep_checkpoints:
            keys.pop("keep_checkpoints", None)
        return keys

    def complaint(self, key: str) -> tuple[str, str] | None:
        """What is wrong with `trainer[key]`, and the remedy, where only this method can tell."""
        return None

    def stated_by_data(self, key: str) -> bool:
        """Whether the data themselves give `trainer[key]`, so that it need not be a number."""
        return False


TURNS = "turns"
"""The chat template that is shipped (align.tokenizer)."""


class Tuning(Recipe):
    """What every training of a model that exists has."""

    model: str | None = None
    """`base` (the small model shipped with Handloom), a train run's id, a folder, or a model id of
    the Hugging Face hub. Left out: the model of the round before, else `base`."""
    data: str | None = None
    """Id of a build run. Left out: the newest."""
    lora: Lora | None = None
    """Left out, and no `prefix` either: every weight is trained."""
    prefix: Prefix | None = None
    """Instead of `lora`. A prefix stays apart from the weights: it cannot be merged into them."""
    quantization: Literal["nf4"] | None = None
    """Keep the frozen weights in 4 bits (QLoRA, Dettmers et al. 2023); needs an NVIDIA GPU."""
    hardware: Hardware | None = None
    """The machine that the recipe is for. Left out: whatever there is."""
    shapes: Shapes | None = None
    """Of the model and the set, for `--dry-run` where neither is at hand."""
    speed: Speed = Speed()
    new_special_tokens: tuple[str, ...] = ()
    """Added to the tokenizer; the embeddings grow, starting from their mean."""
    chat_template: str | None = None
    """For a model that has none, or instead of its own: `turns`, which marks each turn by special
    tokens that the model learns, or a file with a Jinja template, as seen from the project."""

    @property
    def adds_tokens(self) -> bool:
        """Whether the model may get embeddings that it does not have."""
        return bool(self.new_special_tokens) or self.chat_template == TURNS

    @property
    def adapts(self) -> bool:
        """Whether the model's own weights stay as they are, adapters being trained beside them."""
        return self.lora is not None or self.prefix is not None

    @property
    def reference_first(self) -> bool:
        """Whether a reference is asked before the first step, after which the model is another;
        with adapters, which can be switched off, there is no need."""
        return not self.adapts

    @field_validator("prefix")
    @classmethod
    def _instead_of_lora(cls, prefix: Prefix | None, info: ValidationInfo) -> Prefix | None:
        if prefix is not None and info.data.get("lora") is not None:
            raise ValueError("takes the place of lora. Leave one of them out")
        return prefix

    @field_validator("quantization")
    @classmethod
    def _adapters_beside_4_bits(cls, quantization: str | None, info: ValidationInfo) -> str | None:
        if quantization is not None and not (info.data.get("lora") or info.data.get("prefix")):
            raise ValueError("weights in 4 bits cannot be trained themselves. Add lora: {}")
        return quantization

    @field_validator("new_special_tokens", "chat_template")
    @classmethod
    def _a_prefix_trains_no_embedding(cls, named: Any, info: ValidationInfo) -> Any:
        adds = named == TURNS if info.field_name == "chat_template" else bool(named)
        if adds and info.data.get("prefix") is not None:
            raise ValueError("a prefix leaves their embeddings untrained. Take lora instead")
        return named
