"""What a run would do, without doing it: the plan behind ``--dry-run`` and the hashes behind ``--print-hash``.

Built from the same pure functions that make the requests (tasks/plan.py), so what is printed is what would happen. What
depends on work not yet done is said to be unknown, never guessed: the identity of a training needs the digest of its
pictures, that of the trained model's pictures the hash of its weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from deployments.asked import Asked
from evaluation.benchmark import Benchmark
from evaluation.estimate import estimate
from evaluation.judges.selection import upper_cost
from evaluation.prompt_files import prompts_text
from evaluation.records import CollectRequest, JudgeResult
from evaluation.registry import numerics_version, open_benchmark
from reca_core.contracts.errors import BadInput, PrerequisiteMissing
from reca_core.contracts.hashing import request_hash, sha256_file, sha256_text
from reca_core.contracts.home import Home, RunDirectory
from reca_core.contracts.judging import SettledJudge
from reca_core.contracts.records import PreparedData, ResolvedModel, SampleResult, TrainResult
from reca_core.contracts.registry import BUNDLED_MODELS
from reca_core.contracts.requests import (
    CaptionSource,
    LossTerms,
    ModelChoice,
    SampleRequest,
    TrainingPlan,
    TrainRequest,
)
from tasks import hub_models, plan
from tasks.find_model import addresses
from tasks.home import benchmark_data
from tasks.judge import answers_fault, unanswered
from tasks.judging import full_id, settled
from tasks.leaks import RENDERED_CAPTIONS
from tasks.models import HUB_ID, resolve_model
from tasks.prepare import prepare
from tasks.register import registered_name
from tasks.sample import SAMPLES_FILE, prompt_plan, sampler_task, samples_fault
from tasks.study_legs import Repetition, legs
from tasks.sweep_arms import SweepArm, sweep_arms
from tasks.tracking_models import safe_name
from tasks.train import checkpoint_fault
from tasks.trainings import complete_request, prepared, read_result

REUSED, RESUMED, TO_DO, LATER = "reused", "resumed", "to do", "known later"
HASH_SHOWN = 16


@dataclass(frozen=True)
class Step:
    """One stage of the plan."""

    stage: str
    work: str
    """How much of what."""
    state: str
    """reused: the result is there; resumed: begun; to do; known later: depends on what comes before."""
    directory: str = ""
    """Where the result is or will be; empty where that depends on what comes before."""

    def as_dict(self) -> dict[str, str]:
        """For the JSON object."""
        return asdict(self)


class Foresight:
    """Looks ahead along one flow, reading what earlier runs left and writing nothing."""

    def __init__(self, home: Home, flow: str, asked: Asked) -> None:
        self.home, self.flow, self.asked = home, flow, asked

    def steps(self) -> list[Step]:
        """The plan. Raises BadInput or PrerequisiteMissing for what can already be seen to be impossible."""
        if self.flow == "prepare":
            return [self._prepare()]
        if self.flow == "evaluate" and self.asked.evaluation.pictures_from:
            return list(self._judge_pictures())
        if self.flow == "evaluate":
            return list(self._measure(self.asked.model.source, known_model(self.asked.model)))
        if self.flow == "rollback":
            asked = self.asked.rollback
            return [Step("roll back", f"{asked.name}@{asked.alias} to {asked.to or 'the version before'}", TO_DO)]
        if self.flow == "study":
            return [self._prepare(), self._model(), *self._study()]
        if self.flow == "sweep":
            return [self._prepare(), self._model(), *self._sweep()]
        if self.flow == "re-evaluate":
            return [step for choice in self._versions() for step in self._measure(choice.source, None)]
        steps = [self._prepare(), *self._captions(), self._model(), *self._fine_tune(), self._train(), self._register()]
        if self.flow == "train-then-evaluate":
            missing = list(self._unfetched())
            if missing:
                return [*steps, *missing, Step("sample, judge, compare, report", "after that", LATER)]
            steps += self._measure("base model", known_model(self.asked.model))
            steps += self._measure("trained model", self._trained())
            steps += [Step("compare", "paired by prompt, with intervals", TO_DO), Step("report", "report.html", TO_DO)]
        return steps

    def _prepare(self) -> Step:
        images, done = self.asked.images, self._prepared()
        source = f"{images.scenes} rendered scenes" if images.source == RENDERED_CAPTIONS else images.source
        if images.kind in ("auto", "datasets") and HUB_ID.fullmatch(images.source) and not done:
            chosen = f", {images.files}" if images.files else ""
            source = f"{source}{chosen}, downloaded from the hub"
        known = f"; last time {done.pictures} pictures and {done.quarantined} unusable files" if done else ""
        directory = done.directory if done else plan.prepare_request(self.home, images).run_directory
        return Step("prepare", f"{source}{known}; looked at every time", REUSED if done else TO_DO, directory)

    def _prepared(self) -> PreparedData | None:
        return prepared(self.home, self.asked.images)

    def _model(self) -> Step:
        model = known_model(self.asked.model)
        if model is None:
            chosen = " ".join(part for part in (self.asked.model.source, self.asked.model.weights) if part)
            published = hub_models.known_model(self.asked.model)
            own = self.asked.model.source
            others = [one.repository for one in published.downloads if one.repository != own] if published else []
            parts = f" with {', '.join(dict.fromkeys(others))}" if others else ""
            return Step("model", f"{chosen}{parts}, downloaded from the hub", TO_DO)
        work = f"{model.name}, family {model.family}, SHA-256 {model.sha256[:HASH_SHOWN]}"
        return Step("model", work, REUSED, model.path)

    def _captions(self) -> Iterator[Step]:
        """Caption files that the run reads: they are the person's to bring."""
        asked, losses = self.asked, self.asked.losses
        needed = [asked.captions] if losses.image_to_text + losses.text_to_image + losses.text else []
        needed += [CaptionSource(source=asked.fine_tuning.captions)] if asked.fine_tuning.steps else []
        for captions in needed:
            if captions.source != RENDERED_CAPTIONS:
                file = Path(plan.placed_captions(self.home, captions).source)
                there = file.is_file()
                work = f"{file.name}, {'is there' if there else 'not there yet: bring it before the run'}"
                yield Step("captions", work, REUSED if there else TO_DO, str(file))

    def _fine_tune(self) -> Iterator[Step]:
        if self.asked.fine_tuning.steps:
            losses, captions, training = plan.fine_tuning_parts(
                self.asked.fine_tuning, self.asked.training, self.asked.captions
            )
            request = self._request(known_model(self.asked.model), losses, captions, training)
            yield self._training_step("fine-tune", training, request)

    def _train(self) -> Step:
        return self._training_step("train", self.asked.training, self._train_request())

    def _training_step(self, stage: str, training: TrainingPlan, request: TrainRequest | None) -> Step:
        seen = training.steps * training.images_per_step
        work = f"{training.steps} optimizer steps of {training.images_per_step} pictures, {seen} in all"
        if request is None:
            return Step(stage, work, LATER)
        directory = RunDirectory(Path(request.run_directory))
        begun = any(directory.checkpoints.glob("step-*/DONE.json"))
        state = REUSED if trained_by(request) else RESUMED if begun else TO_DO
        return Step(stage, work, state, request.run_directory)

    def _request(
        self, model: ResolvedModel | None, losses: LossTerms, captions: CaptionSource, training: TrainingPlan
    ) -> TrainRequest | None:
        """None while the pictures or the weights are not here."""
        data = self._prepared()
        return self._complete(model, data, losses, captions, training) if model and data else None

    def _train_request(self) -> TrainRequest | None:
        asked, model = self.asked, known_model(self.asked.model)
        if asked.fine_tuning.steps:
            first = self._request(model, *plan.fine_tuning_parts(asked.fine_tuning, asked.training, asked.captions))
            model = trained_by(first) if first else None
        return self._request(model, asked.losses, asked.captions, asked.training)

    def _trained(self) -> ResolvedModel | None:
        request = self._train_request()
        return trained_by(request) if request else None

    def _register(self) -> Step:
        registration, model = self.asked.registration, known_model(self.asked.model)
        chosen = Path(self.asked.model.weights).stem or self.asked.model.source.rpartition("/")[2]
        on_the_hub = f"reca-{safe_name(chosen)}"
        name = registration.name or (registered_name(model) if model else on_the_hub)
        alias = f", alias {registration.alias}" if registration.alias else ""
        return Step("register", f"one version of {name}{alias}", TO_DO)

    def _study(self) -> Iterator[Step]:
        """The base is measured once, every arm as often as there are repetitions; nothing is trained to look."""
        study, training = self.asked.study, self.asked.training
        yield from self._measure("base model", known_model(self.asked.model))
        for arm in study.arms:
            first = study.first_training_seed
            seeds = f"seeds {first} to {first + study.repetitions - 1}"
            work = f"{training.steps} optimizer steps of {training.images_per_step} pictures, {seeds}"
            yield Step(f"train {arm}", work, LATER)
            yield Step(f"measure {arm}", ", ".join(name for name, _ in self._benchmarks()), LATER)
        yield Step("study", "differences with intervals, verdicts, figure", TO_DO)

    def _sweep(self) -> Iterator[Step]:
        """The base is measured once, every setting is trained and measured once."""
        yield from self._measure("base model", known_model(self.asked.model))
        work = f"{self.asked.training.steps} optimizer steps of {self.asked.training.images_per_step} pictures"
        for arm in self._settings():
            yield Step(f"train {arm.name}", work, LATER)
            yield Step(f"measure {arm.name}", ", ".join(name for name, _ in self._benchmarks()), LATER)
        yield Step("sweep", "differences to the base with intervals, the best setting, figure", TO_DO)

    def _settings(self) -> list[SweepArm]:
        return sweep_arms(self.asked.sweep, self.asked.losses, self.asked.training)

    def _measure(self, who: str, model: ResolvedModel | None) -> Iterator[Step]:
        for name, opened in self._benchmarks():
            pictures = sum(len(prompt.seeds) for prompt in opened.prompts())
            state, directory = self._sampled(opened, model)
            work = f"{who}: {len(opened.prompts())} prompts, {pictures} pictures"
            yield Step(f"sample {name}", work, state, directory)
            state, directory = self._judged(name, Path(directory)) if state == REUSED else (LATER, "")
            yield Step(f"judge {name}", f"{who}: {self._asking(name, opened)}", state, directory)

    def _asking(self, benchmark_id: str, opened: Benchmark) -> str:
        """What the judge is asked and what it costs at most. Raises BadInput where the limits do not cover it."""
        expected, judge = estimate(opened), self._judge()
        asked = f"{expected.least} questions to the judge"
        if expected.most > expected.least:
            asked = f"{expected.least} to {expected.most} questions to the judge"
        cost = upper_cost(expected.most, expected.text_bytes, expected.pictures_sent, judge)
        remedy = "raise the limit, or measure less: --set evaluation.prompts_per_tag=N"
        if judge.max_requests and expected.most > judge.max_requests:
            fact = f"{benchmark_id} may take {expected.most} requests, {judge.max_requests} are allowed"
            raise BadInput(fact, field="judge.max_requests", remedy=remedy)
        if judge.max_cost_dollars and cost > judge.max_cost_dollars:
            fact = f"{benchmark_id} may cost {cost:.2f} dollars, {judge.max_cost_dollars:.2f} are allowed"
            raise BadInput(fact, field="judge.max_cost_dollars", remedy=remedy)
        return f"{asked}, at most {cost:.2f} dollars" if cost else asked

    def _judge(self) -> SettledJudge:
        return settled(self.asked.judge)

    def _judge_pictures(self) -> Iterator[Step]:
        """How many pictures there are is known after the look."""
        folder = self.asked.evaluation.pictures_from
        for name, opened in self._benchmarks():
            request = self._collect_request(name)
            work = f"pictures of {len(opened.prompts())} prompts in {folder}; looked at every time"
            yield Step(f"collect {name}", work, TO_DO, request.output_directory)
            count = max((len(prompt.seeds) for prompt in opened.prompts()), default=0)
            asked = f"with {count} per prompt {self._asking(name, opened)}"
            yield Step(f"judge {name}", f"{folder}: {asked}", LATER)

    def _collect_request(self, benchmark: str) -> CollectRequest:
        data = benchmark_data()
        version = numerics_version(benchmark, self._judge())
        return plan.collect_request(self.home, benchmark, version, self.asked.evaluation, str(data) if data else "")

    def _benchmarks(self) -> Iterator[tuple[str, Benchmark]]:
        for benchmark in self.asked.evaluation.benchmarks:
            name = full_id(benchmark, self._judge())
            yield name, open_benchmark(name, prompt_plan(self.asked.evaluation), benchmark_data())

    def _unfetched(self) -> Iterator[Step]:
        """What has to be downloaded before the benchmarks can be opened."""
        for benchmark in self.asked.evaluation.benchmarks:
            name = full_id(benchmark, self._judge())
            try:
                open_benchmark(name, prompt_plan(self.asked.evaluation), benchmark_data())
            except PrerequisiteMissing as error:
                yield Step(f"benchmark {name}", f"{error.fact}; before the run: {error.remedy}", TO_DO)

    def _sampled(self, opened: Benchmark, model: ResolvedModel | None) -> tuple[str, str]:
        if model is None:
            return LATER, ""
        directory = RunDirectory(Path(self._sample_request(opened, model).output_directory))
        done = read_result(directory, SampleResult)
        if done is not None and not samples_fault(directory.path, done):
            return REUSED, str(directory.path)
        begun = (directory.path / SAMPLES_FILE).exists()
        return (RESUMED if begun else TO_DO), str(directory.path)

    def _judged(self, benchmark: str, samples: Path) -> tuple[str, str]:
        data = benchmark_data()
        request = plan.judge_request(
            home=self.home,
            benchmark=benchmark,
            numerics_version=numerics_version(benchmark, self._judge()),
            samples=RunDirectory(samples),
            prompts_sha256=sha256_file(samples / plan.PROMPTS_FILE),
            samples_sha256=sha256_file(samples / SAMPLES_FILE),
            evaluation=self.asked.evaluation,
            judge=self._judge(),
            benchmark_data=str(data) if data else "",
        )
        directory = Path(request.output_directory)
        done = read_result(RunDirectory(directory), JudgeResult)
        begun = (directory / "transcript.jsonl").exists()
        whole = done is not None and not answers_fault(directory, done) and not unanswered(done)
        state = REUSED if whole else RESUMED if begun else TO_DO
        return state, str(directory)

    def _sample_request(self, opened: Benchmark, model: ResolvedModel) -> SampleRequest:
        digest = sha256_text(prompts_text(opened))
        return plan.sample_request(self.home, model, digest, self.asked.sampling, sampler_task(opened, model.family))

    def _versions(self) -> list[ModelChoice]:
        return [ModelChoice(source=address) for address in addresses(self.asked.versions).values()]

    def hashes(self) -> dict[str, str]:
        """What is asked for -> request hash. Pictures are prepared first where a training's identity needs them.

        Raises PrerequisiteMissing where a model is not there.
        """
        if self.flow == "prepare":
            return {"prepare": request_hash(plan.prepare_request(self.home, self.asked.images))}
        if self.flow == "evaluate" and self.asked.evaluation.pictures_from:
            return {f"collect {name}": request_hash(self._collect_request(name)) for name, _ in self._benchmarks()}
        if self.flow in ("evaluate", "re-evaluate"):
            choices = [self.asked.model] if self.flow == "evaluate" else self._versions()
            return dict(self._sample_hashes(choices))
        if self.flow == "rollback":
            return {}
        asked, data = self.asked, prepare.fn(self.asked.images).data
        model = resolve_model(asked.model)
        if self.flow == "study":
            return dict(self._study_hashes(model, data))
        if self.flow == "sweep":
            return {
                f"train {arm.name}": request_hash(self._complete(model, data, arm.losses, asked.captions, arm.training))
                for arm in self._settings()
            }
        if asked.fine_tuning.steps:
            parts = plan.fine_tuning_parts(asked.fine_tuning, asked.training, asked.captions)
            return {"fine-tune": request_hash(self._complete(model, data, *parts))}
        return {"train": request_hash(self._complete(model, data, asked.losses, asked.captions, asked.training))}

    def _complete(
        self,
        model: ResolvedModel,
        data: PreparedData,
        losses: LossTerms,
        captions: CaptionSource,
        training: TrainingPlan,
    ) -> TrainRequest:
        return complete_request(self.home, model, data, losses, captions, training)

    def _study_hashes(self, model: ResolvedModel, data: PreparedData) -> Iterator[tuple[str, str]]:
        """Of the first training of every arm; a second stage is known when the first one's weights are."""
        asked = self.asked
        for number in range(asked.study.repetitions):
            repetition = Repetition.of(asked.study, asked.captions, asked.training, number)
            for arm in asked.study.arms:
                leg = repetition.seeded(legs(arm, asked.losses, asked.training)[0])
                request = self._complete(model, data, leg.losses, repetition.captions, leg.training)
                yield f"train {arm}, seed {repetition.seed}", request_hash(request)

    def _sample_hashes(self, choices: list[ModelChoice]) -> Iterator[tuple[str, str]]:
        for choice in choices:
            model = resolve_model(choice)
            for name, opened in self._benchmarks():
                yield f"sample {name}, {choice.source}", request_hash(self._sample_request(opened, model))


def known_model(choice: ModelChoice) -> ResolvedModel | None:
    """A model that is on this disk; None for a hub id, which a look ahead does not download."""
    on_the_hub = choice.source not in BUNDLED_MODELS and HUB_ID.fullmatch(choice.source) is not None
    return None if on_the_hub else resolve_model(choice)


def trained_by(request: TrainRequest) -> ResolvedModel | None:
    """The weights that a training made, where it has ended and they are as they were."""
    done = read_result(RunDirectory(Path(request.run_directory)), TrainResult)
    if done is None or checkpoint_fault(done):
        return None
    return request.model.model_copy(update={"path": done.checkpoint.path, "sha256": done.checkpoint.sha256})
