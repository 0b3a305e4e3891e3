"""`python -m figures.benchmarks [--quick] [--only SECTION ...]`: measure, save and print.

Each section is saved as it ends; one that was interrupted loses nothing but itself. Libraries are
called one after the other, never two at once, each with all cores.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from figures.benchmarks.libraries import prepare_libraries
from refimpl.storage import read_json, write_file

HERE = Path(__file__).parents[1]
BUDGET, TASKS_SHARE = 3600.0, 0.6  # seconds, with which one run measures every row
SECTIONS = ("gradients", "products", "tasks", "dense", "cold_start", "memory", "scaling")


class Settings:
    """Sizes and budgets of a run, in seconds.

    Attributes
    ----------
    size : tuple
        Rows and columns of an image.
    images, rounds : int
    budget, scaling_budget, count_budget : float
        Of the whole run, of `scaling`, and of counting the plain iteration of one task.
    tasks : tuple of (task, tied)
    targets : tuple of float
        Relative errors of dℓ/dθ.
    """

    def __init__(self, quick: bool, budget: float = BUDGET):
        self.quick, self.budget = quick, budget
        self.size, self.images = ((48, 40), 2) if quick else ((178, 218), 10)
        self.rounds = 3 if quick else 9
        # In 150 s the count for deblurring to 1e-3 ends.
        self.scaling_budget, self.count_budget = (6.0, 4.0) if quick else (60.0, 150.0)
        every = (("denoising", True), ("deblurring", True), ("inpainting", True),
                 ("denoising", False), ("deblurring", False))
        self.tasks = every[:1] if quick else every
        self.targets = (1e-3,) if quick else (1e-3, 1e-6)


class Bench:
    """One run: settings, trained filters, and results so far."""

    def __init__(self, settings: Settings, output: Path, say):
        from figures.benchmarks.problems import trained_parameters

        self.settings, self.output, self.say = settings, output, say
        self.begin = time.perf_counter()
        self.theta = trained_parameters(output, settings.quick, say)
        self.path = output / "benchmark.json"
        self.results = read_json(self.path) if self.path.exists() else {}

    def save(self, **sections) -> None:
        """Add sections to the results, and write them all."""
        self.results |= sections
        write_file(self.path, (json.dumps(self.results, indent=1) + "\n").encode())

    def problem(self, task: str = "denoising", tied: bool = True):
        """One of the problems."""
        from figures.benchmarks.problems import make_problem

        size, images = self.settings.size, self.settings.images
        return make_problem(task, self.theta[tied], size=size, images=images)

    def gradients(self) -> None:
        """One gradient, and the machine's limits in the same run."""
        from figures.benchmarks.single import compare_gradients, fractions, machine_limits

        truth = self.problem().truth
        gradients = compare_gradients(truth, self.settings.rounds)
        limits = machine_limits(self.settings.rounds)
        self.save(
            gradients=gradients, limits=limits, fractions=fractions(gradients, limits, truth.size)
        )

    def products(self) -> None:
        """One product with the Hessian in every form."""
        from figures.benchmarks.single import compare_products

        self.save(products=compare_products(self.problem(), self.settings.rounds))

    def tasks(self) -> None:
        """Every task that is begun within its share of the budget, saved error by error."""
        for task, tied in self.settings.tasks:
            problem = self.problem(task, tied)
            if time.perf_counter() - self.begin > TASKS_SHARE * self.settings.budget:
                self.say(f"task {problem.name}: left out, the budget is spent; --budget raises it")
                continue
            self.say(f"task {problem.name}")
            self.one_task(problem)

    def one_task(self, problem) -> None:
        """All variants to every error."""
        from figures.benchmarks import iteration, tasks
        from figures.benchmarks.problems import find_reference

        problems = problem, problem.few(tasks.FEW)
        references = tuple(find_reference(p, self.output / "references") for p in problems)
        self.say("  references solved")
        wanted, made, targets = self.settings.targets, tasks.Made(problems, references), {}
        paper = iteration.extrapolate(problems, references[1], wanted, self.settings.count_budget)
        self.say("  plain iteration counted")
        for target in wanted:
            rows = tasks.compare(self.variants(), made, target, self.say)
            tasks.add_ratio(paper[target], rows)
            targets[f"{target:g}"] = {"torch plain iteration": paper[target]} | rows
            found = {"targets": targets, "cross_check": list(references[0][2:])}
            self.save(tasks=self.results.get("tasks", {}) | {problem.name: found})

    def variants(self):
        """The variants in the forms that were fastest when products were timed."""
        from figures.benchmarks.variants import variants

        seconds = self.results.get("products", {}).get("seconds", {})
        forms = {"torch conv2d": 0.0, "jax shifts": 0.0} if not seconds else seconds
        torch, jax = (
            min((name for name in forms if name in allowed), key=forms.get).split()[1]
            for allowed in (
                ("torch conv2d", "torch channels_last", "torch unfold"),
                ("jax convolution", "jax shifts"),
            )
        )
        return variants(torch, jax)

    def dense(self) -> None:
        """The dense model."""
        from figures.benchmarks import dense

        problem = dense.make_problem(4 if self.settings.quick else dense.IMAGES)
        self.save(dense=dense.compare(problem, self.say))

    def memory(self) -> None:
        """Peak memory of some variants."""
        from figures.benchmarks.processes import peak_memory

        names = ["refimpl", "torch newton", "jax convolutions", "jax stencil"]
        height, width = self.settings.size
        flags = [str(height), str(width), str(self.settings.images)]
        self.save(memory=peak_memory(names[: 1 if self.settings.quick else 4], self.output, flags))

    def cold_start(self) -> None:
        """A new interpreter until its first gradient."""
        from figures.benchmarks.processes import cold_start

        self.save(cold_start=cold_start(compiling=not self.settings.quick))

    def scaling(self) -> None:
        """Time against image size, filters and batch."""
        from figures.benchmarks.scaling import measure_all

        A = self.theta[True].A
        self.save(scaling=measure_all(A, self.settings.scaling_budget, self.say))


def main(arguments: list[str] | None = None) -> int:
    """Run the sections asked for, all by default, and print every table saved so far."""
    options = parse(arguments)
    begin = time.perf_counter()

    def say(text: str) -> None:
        print(f"[{time.perf_counter() - begin:6.1f} s] {text}", flush=True)

    output = options.output or HERE / ("output-quick" if options.quick else "output")
    output.mkdir(parents=True, exist_ok=True)
    prepare_libraries()
    bench = Bench(Settings(options.quick, options.budget), output, say)
    for section in options.only or SECTIONS:
        say(section)
        getattr(bench, section)()
    from figures.benchmarks.report import print_results

    print_results(bench.results)
    print(f"\nsaved: {bench.path}")
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m figures.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small images, one task")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="measure only these sections")
    parser.add_argument(
        "--budget", type=float, default=BUDGET, metavar="SECONDS",
        help=f"no task is begun after {TASKS_SHARE:g} of it (%(default)g)",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="where results go")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
