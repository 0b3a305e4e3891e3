"""One sentence for each cause: what it is, and how to mend it.

A slug may end in a colon and a detail (a boundary, a potential, a factor, a count of terms), which
takes the place of {}.
"""

EXPLANATIONS = {
    "factor_two": "twice the reference: look for a missing 1/2, or a term counted twice",
    "factor_half": "half the reference: look for a 1/2 too many, or a 2 lost in differentiating",
    "sign": "minus the reference: exchange the sign",
    "zero": "zero: the value is never computed, or its gradient is cut off",
    "factor": "the reference times {}: look where this factor is missing or used twice",
    "times_batch": "the reference times the number of images: sum once, not once per image",
    "divided_by_batch": "the reference divided by the number of images: sum, do not average",
    "times_pixels": "the reference times the number of pixels: average over pixels",
    "divided_by_pixels": "the reference divided by the number of pixels: sum over pixels",
    "divided_by_height": "the reference divided by the number of rows of an image: E11 is a mean",
    "divided_by_width": "the reference divided by the number of columns: E11 is a mean",
    "divided_by_channels": "the reference divided by the number of channels: E11 is a mean",
    "clipped": "values are clipped to [0, 1]: E8 does not",
    "sum_not_mean": "the reference times the number of entries: E11 is a mean, not a sum",
    "mean_not_sum": "the reference divided by the number of entries: take the sum",
    "state_term_factor": "the first term (u, v or w itself) is multiplied by {}: it has factor 1",
    "data_term_factor": "the data term λKᵀ(Ku − y) is multiplied by {}: correct its factor",
    "field_term_factor": "the field γCᵀ(w σ) is multiplied by {}: correct its factor",
    "tau_factor": "the step τ is multiplied by {}: use τ as given",
    "data_term_missing": "the data term λKᵀ(Ku − y) is missing: add it",
    "field_missing": "the field γCᵀ(w σ) is missing: add it",
    "data_sign": "the data y have the wrong sign: the residual is K u − y",
    "lambda_ignored": "λ is 1 in place of its value: multiply the data term by it",
    "gamma_ignored": "γ is 1 in place of its value: multiply the field by it",
    "tau_ignored": "τ is 1 in place of its value: multiply G by it",
    "lambda_gamma_exchanged": "λ and γ are exchanged: λ belongs to the data term",
    "lambda_on_field": "λ multiplies the field: it belongs to the data term alone",
    "gamma_on_data": "γ multiplies the data term: it belongs to the field alone",
    "bias_ignored": "the bias b is left out: add it to A u before σ",
    "bias_sign": "the bias is subtracted: z = A u + b",
    "bias_after_sigma": "the bias is added after σ: it belongs inside, σ(A u + b)",
    "weights_ignored": "the weights w are left out: multiply σ(z) by them",
    "weights_squared": "the weights act twice: multiply by w once",
    "weights_inside_sigma": "the weights multiply inside σ: they multiply σ(z)",
    "weights_root": "the square root of the weights acts: multiply by w itself",
    "filters_flipped": "filters are flipped: A u is cross-correlation, not convolution",
    "filter_rows_flipped": "filters are upside down: the first row acts above",
    "filter_columns_flipped": "filters are mirrored: the first column acts on the left",
    "channels_reversed": "the channels of the filters are in reverse order",
    "border_responses_dropped": (
        "filters that reach over the border are left out: pad by the boundary of the case"
    ),
    "padding_short": "padding is short by {} on every side: responses are lost at the border",
    "filters_transposed": "filters have rows and columns exchanged: the last axis is columns",
    "kernel_flipped": "the blur kernel is flipped: K is true convolution, not correlation",
    "kernel_transposed": "the blur kernel has rows and columns exchanged",
    "kernel_adjoint_missing": "K stands where Kᵀ belongs: use the transposed map",
    "matrix_transposed": "the matrix is used transposed: K u = M vec(u)",
    "operator_ignored": "K is left out: the data term is λKᵀ(K u − y)",
    "operator_adjoint_ignored": "Kᵀ is left out: the data term is λKᵀ(K u − y)",
    "operator_boundary": "the blur acts under the boundary {}: use operator_boundary of the case",
    "operator_padding_adjoint_missing": (
        "Kᵀ pads and correlates: transpose the padding too, adding its border back where it came "
        "from"
    ),
    "mask_complement": "the mask is inverted: 1 marks the pixels that are seen",
    "kernel_not_centred": "the blurred image is moved by ({}): centre the kernel at the origin",
    "energy_constant": (
        "a number that does not depend on u is missing, which no gradient sees: hidden pixels "
        "count in λ/2 ‖K u − y‖²"
    ),
    "analysis_boundary": "A pads by {}: use the boundary of the case",
    "synthesis_boundary": "Cᵀ pads by {}: it is the transpose of C, boundary included",
    "analysis_adjoint_boundary": "Aᵀ pads by {}: it is the transpose of A, boundary included",
    "synthesis_not_transposed": "Cᵀ is a correlation with the same filters: use its transpose",
    "analysis_not_transposed": "Aᵀ is a correlation with the same filters: use its transpose",
    "synthesis_padding_adjoint_missing": (
        "Cᵀ pads the responses: transpose the padding instead, adding its border back where it "
        "came from"
    ),
    "analysis_padding_adjoint_missing": (
        "Aᵀ pads the responses: transpose the padding instead, adding its border back where it "
        "came from"
    ),
    "c_ignored": "A is used in the place of C: an untied case has both",
    "a_ignored": "C is used in the place of A: an untied case has both",
    "a_c_exchanged": "A and C, or their gradients, are exchanged",
    "terms_added": "the gradients of A and C are added: in an untied case they are separate",
    "one_of_two_terms": "only one of the two terms of the tied gradient is there: add both (E7)",
    "term_sign": "the two terms of the tied gradient are subtracted: add them (E7)",
    "sigma_for_sigma_prime": "σ stands where σ′ belongs: differentiate the activation",
    "sigma_prime_for_sigma": "σ′ stands where σ belongs",
    "sigma_prime_ignored": "σ′ is 1: multiply by the derivative of the activation",
    "sigma_for_phi": "σ stands where φ belongs: the energy sums φ",
    "phi_for_sigma": "φ stands where σ = φ′ belongs",
    "wrong_potential": "the potential is {} (φ, σ or σ′): use the potential of the case",
    "wrong_potential_parameter": "the potential has another parameter: use the one of the case",
    "parameter_is": "the parameter of the potential is {}: use the one of the case",
    "potential_scaled": "the potential is multiplied or divided by its parameter: compare φ",
    "potential_shifted": "a constant is added to φ: compare φ(0), which the energy counts",
    "norm_inexact": "A and C are rescaled by norms that are not exact: iterate longer",
    "norm_frozen": "the norm is treated as a constant: differentiate it too",
    "norm_ignored": (
        "A and C are not normalised: rescale them to the norm of the case (code without norms: "
        "fix normalized to false)"
    ),
    "norm_size_ignored": "A and C are rescaled to norm 1: rescale to the norm of the case",
    "norm_frobenius": "the norm is that of Frobenius: use the spectral norm of the operator",
    "norm_of_reshaped_filters": (
        "the norm is that of the reshaped filters: use the spectral norm of the whole operator"
    ),
    "norm_of_patch": "the norm is that on a small patch: use the size of the image",
    "norm_under_boundary": (
        "the norm is that under the boundary {}, for periodic that of an FFT of any size: use the "
        "case's"
    ),
    "adjoint_not_transposed": "the Jacobian stands where its transpose belongs",
    "adjoint_zero": "the hypergradient is zero: the adjoint solve failed, or is cut off",
    "adjoint_is_right_hand_side": (
        "the adjoint state is its right-hand side: the solve failed or was not made"
    ),
    "adjoint_scaled_by_tau": "the adjoint states p and q = p / τ are confused (E9)",
    "jacobian_free": "q = ∇ℓ, the Jacobian-free gradient: solve (I − ∂T)ᵀ q = ∇ℓ (E9)",
    "truncated_neumann": (
        "q is {} terms of the Neumann series, as when {} steps are unrolled at the fixed point: "
        "solve E9"
    ),
    "truncated_unrolled": "the gradient of {} unrolled steps from the start: solve E9 at u*",
    "at_start_not_fixed_point": "the gradient is taken at the start: take it at the fixed point",
    "too_few_forward_iterations": (
        "the forward iteration stops too early: iterate until ‖T(u) − u‖ ≤ tol ‖u‖"
    ),
    "too_few_adjoint_iterations": "the adjoint solve stops too early: tighten its tolerance",
    "hidden_precision": "the error is that of a lower precision: keep the given one throughout",
    "transposed_image": "rows and columns are exchanged: images are (N, C, H, W)",
    "axes_reversed": (
        "the axes are in reverse order, as column-major languages write them: write "
        "permute(x, ndims(x):-1:1)"
    ),
    "flipped_image": "the image is turned by 180°",
    "other_output": "the value is that of the output {}: return the one asked for",
    "batch_reversed": "the images are in another order",
    "one_image_for_all": "all images hold the result of the first: treat each by itself",
    "images_averaged": "the images are averaged over the batch: treat each by itself",
    "images_added": "the images are added up over the batch: treat each by itself",
    "some_images": "some images agree and others do not: images must not influence each other",
    "border": "agrees inside and differs in a border: compare the boundary",
    "modifies_arguments": "an argument is changed in place: copy it first",
    "returns_view": "the result shares memory with an argument: return a copy",
    "stale_state": (
        "the result depends on earlier calls: look for caches keyed on too little, such as "
        "filters or a linearisation kept from another problem"
    ),
    "not_deterministic": (
        "two equal calls differ: look for unseeded random numbers or uninitialised memory"
    ),
    "leaks_between_images": (
        "an image influences the result of another: look for sums, means or norms over the batch"
    ),
    "batch_global_stopping": (
        "the stopping test looks at the whole batch: test each image against its own norm"
    ),
    "raised": "the call raised an exception",
    "raises_below_window": (
        "the call raises where an image is smaller than the window; --only size=window leaves "
        "such images out"
    ),
    "wrong_shape": "the result has the wrong shape",
    "wrong_dtype": "the result has the wrong dtype: look for a cast, or constants that promote",
    "wrong_type": "the result is no array: return NumPy, or anything with __dlpack__",
    "wrong_entries": "the mapping holds other names than those of the parameters",
    "not_adjoint": "the products with ∂T and (∂T)ᵀ do not pair: ⟨∂T v, w⟩ ≠ ⟨v, (∂T)ᵀ w⟩",
    "not_symmetric": "the Hessian product is not symmetric: ⟨H v, w⟩ ≠ ⟨v, H w⟩",
    "not_linear": (
        "the product is not linear in its direction: look for clipping or finite differences"
    ),
    "not_finite": "the result holds NaN or infinity",
    "hangs": "the call did not return within the time limit: look for a loop that cannot end",
}


def explanation(slug: str) -> str:
    """The sentence for a slug, with its detail filled in; both, for two with a + between them.

    Raises
    ------
    KeyError
        If the cause is unknown.
    """
    if "+" in slug:
        return "; and ".join(map(explanation, slug.split("+")))
    cause, _, detail = slug.partition(":")
    words = detail if cause == "other_output" else detail.replace("_", " ")
    return EXPLANATIONS[cause].replace("{}", words)
