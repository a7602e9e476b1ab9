"""The driver of a diagnosis: draws and judges block by block until every verdict is clear, and writes the results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from torch import Tensor

from corrector.base import BaseSpec, ContentCache, Precision, resolve_base
from corrector.detectors import Detector, NotRun, choose_detectors
from corrector.diagnosis import PromptDiagnosis, SequentialTest, ranked
from corrector.drawing import BLOCK_ROWS, Block
from corrector.errors import UserError
from corrector.evaluation import FeatureMemory
from corrector.files import write_atomically
from corrector.prompts import EvaluationSettings
from corrector.report.diagnosis import write_diagnosis_page
from corrector.storage import Storage
from jobs.diagnosis.drawing import ClusterDrawing
from jobs.diagnosis.prompts import PromptSource, load_exemplars, read_prompts
from jobs.diagnosis.results import Diagnosed, failing_batch, json_of, notes_of, table_of
from jobs.inputs.run_folder import RunFolder, write_json
from jobs.inputs.run_lock import locked
from jobs.lanes.provisioning import connect

RESULT_FILE = "diagnosis.json"
PAGE_FILE = "diagnosis.html"
MAX_IMAGES = 1024
"""Of one prompt. The exact error rates of as many looks take seconds."""


@dataclass(frozen=True)
class DiagnosisWork:
    """A checked submission; created before the job connects to Ray.

    Attributes:
        base: The base's name, as the batch file that is written gives it.
        out: The batch file to write.
        page: Where the page goes, besides the run's folder.
        exemplars: In the batch file, the folder with a folder for each prompt.
    """

    source: PromptSource
    base: str
    spec: BaseSpec
    run: RunFolder
    detectors: Sequence[Detector]
    not_run: Sequence[NotRun]
    test: SequentialTest
    out: Path
    page: Path | None = None
    exemplars: str = "exemplars"

    @property
    def evaluation(self) -> EvaluationSettings:
        """The batch file's, since a correction must find the images; else the defaults."""
        return EvaluationSettings() if self.source.batch is None else self.source.batch.evaluation

    @property
    def sends(self) -> list[str]:
        """What leaves this machine, a sentence for each detector."""
        images = len(self.source.prompts) * self.test.images
        return [said for each in self.detectors if (said := each.sends(images)) is not None]


def check_work(
    prompts: str,
    *,
    storage: Storage | Path | str,
    out: Path,
    run: str | None = None,
    base: str | None = None,
    precision: Precision = "auto",
    detectors: Sequence[str] = (),
    images: int = 32,
    fails_at: float = 0.2,
    page: Path | None = None,
    exemplars: str = "exemplars",
) -> DiagnosisWork:
    """Read and check all input; nothing is sent, drawn or written.

    Raises:
        UserError: The prompts, their exemplars, the base, a detector or the run's name cannot be used, or `out` exists.
    """
    if images % BLOCK_ROWS or not BLOCK_ROWS <= images <= MAX_IMAGES:
        raise UserError(f"--images {images}: expected a multiple of {BLOCK_ROWS}, at most {MAX_IMAGES}")
    if out.exists():
        raise UserError(f"{out}: is there already; name a new file")
    source = read_prompts(prompts)
    name = base or ("embedded" if source.batch is None else source.batch.base)
    spec = resolve_base(name, precision=precision)
    folder = RunFolder(storage, run or Path(prompts.rpartition("/")[2]).stem)
    found = load_exemplars(source, spec)
    chosen, not_run = choose_detectors(
        detectors, found, partial(FeatureMemory, cache=ContentCache(folder.cache))
    )
    test = SequentialTest(fails_at, images, BLOCK_ROWS)
    return DiagnosisWork(source, name, spec, folder, chosen, not_run, test, out, page, exemplars)


class DiagnosisJob:
    """One submission of one list of prompts."""

    def __init__(self, work: DiagnosisWork, console: Console) -> None:
        self._work, self._console = work, console
        self._prompts = {
            listed.wordings[0]: (
                PromptDiagnosis(listed.wordings, work.evaluation, work.detectors, work.test),
                listed,
            )
            for listed in work.source.prompts
        }

    def run(self) -> int:
        """Lock the run's folder, diagnose, and write the results; returns the exit status.

        Raises:
            UserError: Another job works in the run's folder, it cannot be written, or the base cannot be used.
        """
        work = self._work
        self._print(
            f"{work.source.given} prompts, {len(self._prompts)} different; at most {work.test.images} images of each, "
            f"a look every {work.test.block}"
        )
        with locked(work.run):
            connect(work.run.run)
            texts = [text for each, _ in self._prompts.values() for text in each.wordings]
            drawing = ClusterDrawing(work.spec, work.run.cache, work.evaluation, texts)
            try:
                self._diagnose(drawing)
            finally:
                drawing.stop()
            return self._write(drawing)

    def _diagnose(self, drawing: ClusterDrawing) -> None:
        while True:
            wanted = {
                block: (each, listed.side(self._work.spec))
                for each, listed in self._prompts.values()
                if (block := each.next_block) is not None
            }
            if not wanted:
                return
            for block, images in drawing.images({block: side for block, (_, side) in wanted.items()}):
                wanted[block][0].add(images)
            counts = Counter(each.verdict for each, _ in self._prompts.values())
            drawn = sum(each.drawn for each, _ in self._prompts.values())
            self._print(
                f"{drawn} images judged; "
                + ", ".join(f"{n} {verdict}" for verdict, n in sorted(counts.items()))
            )

    def _write(self, drawing: ClusterDrawing) -> int:
        work = self._work
        order = ranked(each for each, _ in self._prompts.values())
        diagnosed: Diagnosed = [self._prompts[each.prompt] for each in order]
        notes = notes_of(work.detectors, work.not_run)
        result = work.run.place.file(RESULT_FILE)
        facts = {
            "base": work.base,
            "base_revision": work.spec.revision,
            "fails_at": work.test.fails_at,
            "images": work.test.images,
            "drawn": drawing.drawn,
        }
        write_json(result, json_of(diagnosed, work.detectors, work.not_run, **facts))
        page = self._write_page(order, notes, drawing)
        self._console.print(table_of(diagnosed))
        for note in notes:
            self._console.print(note, style="yellow", markup=False, highlight=False)
        failing = [each for each in order if each.verdict == "fails"]
        written = [str(page), result.url]
        if failing:
            work.out.write_text(
                failing_batch(diagnosed, work.source, work.base, work.exemplars, work.out), encoding="utf-8"
            )
            written.append(f"{work.out} ({len(failing)} prompts that fail)")
        self._print(f"{drawing.drawn} images drawn; written: {', '.join(written)}")
        undecided = sum(each.verdict == "undecided" for each in order)
        if undecided:
            self._print(f"{undecided} prompts are undecided; more --images decide more of them")
        return 1 if undecided else 0

    def _write_page(
        self, order: Sequence[PromptDiagnosis], notes: Sequence[str], drawing: ClusterDrawing
    ) -> Path:
        work = self._work
        sides = {
            text: listed.side(work.spec) for each, listed in self._prompts.values() for text in each.wordings
        }

        def kept(block: Block) -> Tensor | None:
            return drawing.kept(block, sides[block[0][0]])

        stored = work.run.place.file(PAGE_FILE)
        job = {
            "Base": work.spec.name,
            "Fails at": f"{work.test.fails_at:.0%} wrong images",
            "Images": f"at most {work.test.images} a prompt",
            "Detectors": ", ".join(each.name for each in work.detectors),
        }
        title = f"Diagnosis {work.run.run}"
        write_diagnosis_page(order, stored.path, title=title, job=job, notes=notes, kept=kept)
        stored.store()
        if work.page is None:
            return stored.path
        work.page.parent.mkdir(parents=True, exist_ok=True)
        return write_atomically(work.page, stored.path.read_bytes())

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False)
