"""`python -m figures [--quick] [--only NAME ...] [--output DIR]`: train, study, draw."""

import argparse
import os
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

# One thread each: two workers train side by side, and small images gain nothing from more.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
HERE = Path(__file__).parent


def main(arguments: list[str] | None = None) -> int:
    """Run the three stages; files already saved are used again."""
    options = parse(arguments)
    begin = time.perf_counter()

    def say(text: str) -> None:
        print(f"[{time.perf_counter() - begin:6.1f} s] {text}", flush=True)

    output = options.output or HERE / ("output-quick" if options.quick else "output")
    output.mkdir(parents=True, exist_ok=True)
    for name in THREADS:
        os.environ.setdefault(name, "1")
    say("loading")
    from figures import draw, studies, train
    from refimpl.storage import remove_parts

    for folder in (output, output / "runs", output / "studies"):
        remove_parts(folder)
    train.train_all(train.presets(options.quick), output / "runs", say)
    studies.run_all(output, say)
    drawn = draw.draw_all(output, options.only, say)
    say(f"done: {drawn} figures and tables in {output}")
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m figures", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="seven presets, few steps: for continuous integration"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="draw only these figures")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where results and figures go")
    return parser.parse_args(arguments)


def run() -> int:
    """Run the command line: its exit code, 2 with one line where files cannot be used."""
    try:
        return main()
    except (ValueError, OSError, BrokenProcessPool) as error:
        print(f"figures: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("figures: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(run())
