"""`make bench`: this project beside torch, JAX and SciPy, to the same true error of dℓ/dθ.

    problems       ten photographs; denoising, deblurring, inpainting, tied and untied; references
    variants       refimpl, and every rival by the same signature
    plain          the same problem as bare numbers, for rivals
    torch_*, jax_* rivals: the model and the solvers, each once
    iteration      the paper's plain iteration: how many evaluations it takes
    tasks          tolerances chosen by the true error, paired repetitions, ratios
    dense          the dense model against the paper's Anderson iteration
    single         one gradient, one product, and the machine's limits
    scaling        time against image size, filters and batch
    processes      peak memory and cold start, each in a process of its own
    libraries      threads and precision of all of them
    report         the tables, and the targets

No time passes or fails. Every section is saved to output/benchmark.json as it ends.
"""
