"""The figures of the paper and of this reference: `python -m figures`, or `make figures`.

Three stages, each saved, so that a later one never repeats an earlier one:

    train     every preset, tied and untied                output/runs/*.npz
    studies   convergence, hypergradients, checks, ...  output/studies/*.npz
    draw      one script, one figure or table           output/*.png, *.pdf, *.csv, *.md

A saved file is used again as long as its settings are those asked for; delete `output/` to start
anew.
"""
