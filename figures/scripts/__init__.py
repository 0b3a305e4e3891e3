"""One module, one figure or table; each has `draw(output)` and only reads saved results."""
