"""Operators of a user's own are held to their adjoint when they are made, and refused in words."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator

import refimpl as ri
from refimpl.cli import main
from refimpl.engine import make_step
from refimpl.paper.operators.base import Operator
from strategies import generator, normal

SHAPE = (1, 6, 5)
SIZE = 30
MATRIX = normal(generator(0), (7, SIZE))
SINGLE = MATRIX.astype(np.float32)


class SomeError(Exception):
    pass


def raising(x):
    raise SomeError


def foreign(matvec=lambda x: MATRIX @ x, rmatvec=lambda z: MATRIX.T @ z, dtype=np.float64):
    return LinearOperator((7, SIZE), matvec=matvec, rmatvec=rmatvec, dtype=dtype)


class Own(Operator):
    """A class of one's own with the same maps, on batches; it counts its products."""

    domain_shape, range_shape = SHAPE, (7,)

    def __init__(self, matvec=lambda x: MATRIX @ x, rmatvec=lambda z: MATRIX.T @ z):
        self.maps, self.products = (matvec, rmatvec), 0

    def matvec(self, u):
        return self.each(0, u, self.range_shape)

    def adjoint(self, z):
        return self.each(1, z, self.domain_shape)

    def each(self, which, x, shape):
        self.products += 1
        return np.stack([np.reshape(self.maps[which](row.ravel()), shape) for row in x])


def let_in_by_scipy(**maps):
    return ri.FromScipy(foreign(**maps), SHAPE)


def let_in_by_a_problem(**maps):
    return problem(Own(**maps))


class LikePyLops(Own):
    """What an operator of PyLops has: flat arrays, its shape, and the shapes it stands for."""

    dims, dimsd, shape, dtype = (np.int64(6), np.int64(5)), (np.int64(7),), (7, SIZE), np.float64

    def matvec(self, x):
        return self.maps[0](x)

    def rmatvec(self, z):
        return self.maps[1](z)


def problem(K, dtype=np.float64):
    y = normal(generator(1), (2, *K.range_shape), dtype)
    experts = ri.total_variation(SHAPE)
    return ri.Problem(K, y, experts.with_theta(experts.theta.astype(dtype)), 2.0)


DOORS = [let_in_by_scipy, let_in_by_a_problem]


def stale(x):
    x *= 2
    return MATRIX @ x


WRONG = {  # maps, words of the refusal
    "no adjoint at all": (dict(rmatvec=lambda z: np.zeros(SIZE)), "adjoint is not that of K"),
    "wrong by a factor": (dict(rmatvec=lambda z: (1 + 1e-9) * (MATRIX.T @ z)), "adjoint is not"),
    "flipped": (dict(rmatvec=lambda z: (MATRIX.T @ z)[::-1]), "adjoint is not that of K"),
    "one entry": (
        dict(rmatvec=lambda z: MATRIX.T @ z + 1e-8 * (np.arange(SIZE) == 3) * z[0]), "is not that",
    ),
    "affine": (dict(matvec=lambda x: MATRIX @ x + 1), "or K is not linear"),
    "single inside": (
        dict(matvec=lambda x: (SINGLE @ x.astype("f")).astype(float)),
        "single precision and does not say so .dtype=np.float32",
    ),
    "complex": (dict(matvec=lambda x: MATRIX @ x * 1j), "complex numbers, expected real ones"),
    "complex adjoint": (dict(rmatvec=lambda z: MATRIX.T @ z * 1j), "complex numbers, expected"),
    "nan": (dict(matvec=lambda x: MATRIX @ x * np.nan), r"matvec\(u\) gives NaN or infinite"),
    "in place": (dict(matvec=stale), "changes its argument; let it work on a copy"),
    "wordless": (dict(matvec=raising), r"matvec\(u\) raises SomeError; define"),
    "wordless adjoint": (dict(rmatvec=raising), r"adjoint\(z\) raises SomeError; define"),
    "without rmatvec": (dict(rmatvec=None), r"adjoint\(z\) raises .*; define|not callable"),
}  # fmt: skip


@pytest.mark.parametrize("let_in", DOORS)
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_operator_is_refused_where_it_is_let_in(wrong, let_in):
    maps, words = WRONG[wrong]
    with pytest.raises((ValueError, TypeError), match=words):
        let_in(**maps)


@pytest.mark.parametrize("let_in", DOORS)
def test_the_refusal_gives_both_numbers(let_in):
    with pytest.raises(ValueError) as caught:
        let_in(rmatvec=lambda z: 2 * (MATRIX.T @ z))
    words = str(caught.value)
    left, right = (words.split(f"{side} is ")[1].split(",")[0] for side in ("z⟩", "Kᵀ z⟩"))
    assert float(right) == pytest.approx(2 * float(left), rel=1e-8)


def test_right_operators_of_every_kind_are_let_in():
    sparse = scipy.sparse.random_array((7, SIZE), density=0.3, rng=generator(2))
    for K in (
        MATRIX, MATRIX.astype("f"), np.ones((7, SIZE), int), np.zeros((7, SIZE)), 1e30 * MATRIX,
        sparse, sparse.tocsr(), sparse.astype("f"), sparse > 0, aslinearoperator(MATRIX), foreign(),
        foreign(lambda x: SINGLE @ x.astype("f"), lambda z: SINGLE.T @ z.astype("f"), np.float32),
        foreign() @ aslinearoperator(np.eye(SIZE)), 2 * foreign(), Own().as_scipy(),
    ):  # fmt: skip
        ri.FromScipy(K, SHAPE)
    assert problem(Own(), np.float32).tested is not None


def test_operators_like_those_of_pylops_bring_their_shapes():
    K = ri.FromScipy(LikePyLops())
    assert (K.domain_shape, K.range_shape) == (SHAPE, (7,))
    assert ri.FromScipy(LikePyLops(), (3, 2, 5)).domain_shape == (3, 2, 5)
    wrong = LikePyLops(rmatvec=lambda z: 2 * (MATRIX.T @ z))
    with pytest.raises(ValueError, match="adjoint is not that of K"):
        ri.FromScipy(wrong)
    with pytest.raises(TypeError, match="FromScipy: domain_shape is missing"):
        ri.FromScipy(MATRIX)


@pytest.mark.parametrize("size", [8, 64, 256])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exact_adjoints_of_large_operators_pass(size, dtype):
    blur = ri.Convolution(normal(generator(3), (3, 5), dtype), (1, size, size))

    class Foreign(Operator):
        domain_shape = range_shape = (1, size, size)
        matvec, adjoint = staticmethod(blur.matvec), staticmethod(blur.adjoint)

    y = normal(generator(4), (1, 1, size, size), dtype)
    experts = ri.total_variation((1, size, size))
    ri.Problem(Foreign(), y, experts.with_theta(experts.theta.astype(dtype)))


def test_a_wrong_factor_is_seen_in_single_precision_on_large_images():
    shape = (1, 256, 256)

    class Larger(ri.Identity):
        def adjoint(self, z):
            return np.float32(1.1) * z

    experts = ri.total_variation(shape)
    experts = experts.with_theta(experts.theta.astype(np.float32))
    with pytest.raises(ValueError, match="Larger: .* the adjoint is not that of K"):
        ri.Problem(Larger(shape), np.ones((1, *shape), np.float32), experts)


def test_an_operator_is_tested_once():
    K = Own()
    p = problem(K)
    tested = K.products
    assert 0 < tested <= 3
    for same in (p.images(slice(1)), p.with_theta(p.theta), replace(p, lam=3.0)):
        assert same.operator is K and K.products == tested
    other = Own(rmatvec=lambda z: -(MATRIX.T @ z))
    with pytest.raises(ValueError, match="the adjoint is not that of K"):
        replace(p, operator=other)


def test_parts_of_ones_own_are_tested_inside_products_and_sums():
    wrong = Own(rmatvec=lambda z: -(MATRIX.T @ z))
    for K in (2 * wrong, wrong + Own(), wrong @ ri.Identity(SHAPE)):
        with pytest.raises(ValueError, match="the adjoint is not that of K"):
            problem(K)


def test_methods_exchanged_on_an_operator_of_refimpl_are_tested():
    K = ri.Identity(SHAPE)
    K.adjoint = lambda z: -z
    with pytest.raises(ValueError, match="Identity: .* the adjoint is not that of K"):
        problem(K)


def test_operators_of_refimpl_are_not_tested_again(monkeypatch):
    import refimpl.paper.problem as module

    monkeypatch.setattr(module, "require_adjoint", None)
    blur = ri.Convolution(np.ones((3, 3)) / 9, SHAPE)
    for K in (blur, ri.Mask(np.eye(6, 5)) @ blur, 2 * blur - ri.Identity(SHAPE),
              ri.FromScipy(MATRIX, SHAPE)):  # fmt: skip
        make_step(problem(K))


# Fewer pixels


@pytest.mark.parametrize("factor", [1, 2, (3, 1), (9, 9)])
@pytest.mark.parametrize("offset", [0, (0, 0)])
def test_downsampling_keeps_every_so_many_rows_and_columns(factor, offset):
    u = normal(generator(5), (2, 3, 6, 5))
    K = ri.Downsample(factor, (3, 6, 5), offset)
    f, g = factor if isinstance(factor, tuple) else (factor, factor)
    np.testing.assert_array_equal(K.matvec(u), u[:, :, ::f, ::g])
    z = normal(generator(6), K.matvec(u).shape)
    np.testing.assert_array_equal(K.matvec(K.adjoint(z)), z)
    assert np.count_nonzero(K.adjoint(z)) == z.size


def test_downsampled_images_are_reconstructed_from_another_offset():
    truth = np.kron(generator(7).random((1, 1, 4, 4)), np.ones((6, 6)))
    K = ri.Downsample(2, truth.shape[1:], (1, 0))
    star = ri.reconstruct(
        ri.Problem(K, K.matvec(truth), ri.total_variation((24, 24), slope=30), 1e3)
    )
    assert star.all_converged and np.abs(star.x - truth).mean() < 0.05


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((0, (6, 5)), "factor: given 0, expected an integer of at least 1"),
        ((1.5, (6, 5)), "factor: given 1.5"),
        (((2, 2, 2), (6, 5)), r"factor: given \(2, 2, 2\), expected one integer or two"),
        ((2, (6, 5), 2), r"offset is \(2, 2\), expected below the factor \(2, 2\)"),
        ((9, (6, 5), 5), r"and inside of images \(6, 5\)"),
        ((2, (6, 5), -1), "offset: given -1"),
        ((2, (6,)), "image_shape"),
    ],
)
def test_downsampling_that_cannot_be_is_refused(given, words):
    with pytest.raises(ValueError, match=words):
        ri.Downsample(*given)


# Errors without words


def test_a_module_that_raises_without_a_word_is_told_of_by_its_type(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wordless.py").write_text("class E(Exception):\n    pass\n\nraise E\n")
    assert main(["crosscheck", "wordless:Mine"]) == 2
    assert "'wordless' cannot be imported (E: E)" in capsys.readouterr().err


def test_a_backend_that_raises_without_a_word_is_told_of_by_its_type(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "silent.py").write_text("class Mine:\n    def __init__(self):\n"
                                        "        raise ValueError\n")  # fmt: skip
    assert main(["crosscheck", "silent:Mine"]) == 2
    assert "(ValueError: ValueError)" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ValueError(), ValueError(" \n"), TypeError(), OSError()])
def test_bad_input_without_a_word_is_told_of_by_its_type(error):
    from refimpl.cli.common import BadInputError, input_errors

    with pytest.raises(BadInputError, match=type(error).__name__), input_errors():
        raise error


def test_a_check_that_raises_without_a_word_says_its_type():
    found = ri.check(Own(matvec=raising)).failures
    assert found and all(c.name.strip()[-1] not in ":" for c in found)
