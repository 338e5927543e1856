"""Shapes and chunks."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cases import each_of
from zarrstore.chunknames import chunk_coords
from zarrstore.metadata import chunking

GUESSES = json.loads((Path(__file__).parents[1] / "data" / "zarr2_documents.json").read_text())["guesses"]
GRIDS = st.lists(st.tuples(st.integers(0, 7), st.integers(1, 4)), max_size=4)


def test_the_guess_is_that_of_zarr_2():
    assert len(GUESSES) == 1000
    assert [row for row in GUESSES if list(chunking.guess_chunks(tuple(row[0]), row[1])) != row[2]] == []


@given(st.lists(st.integers(0, chunking.MAX_SIZE), max_size=64), st.integers(0, 2**31))
def test_any_shape_has_a_guess_that_ends(shape, typesize):
    guess = chunking.guess_chunks(tuple(shape), typesize)
    assert len(guess) == len(shape)
    assert all(1 <= chunk <= max(1, length) for chunk, length in zip(guess, map(float, shape), strict=True))


@given(GRIDS)
def test_the_grid_is_the_product_of_the_axes(axes):
    shape, chunks = tuple(length for length, _ in axes), tuple(chunk for _, chunk in axes)
    expected = list(itertools.product(*(range(math.ceil(s / c)) for s, c in axes)))
    assert list(chunking.chunk_grid(shape, chunks)) == expected
    assert chunking.n_chunks(shape, chunks) == len(expected)


@given(GRIDS.filter(bool), st.sampled_from("./"))
def test_every_name_leads_back_to_its_position(axes, separator):
    shape, chunks = tuple(length for length, _ in axes), tuple(chunk for _, chunk in axes)
    names = list(chunking.chunk_names(shape, chunks, separator))
    assert [chunk_coords(f"a/{name}", "a", separator) for name in names] == list(chunking.chunk_grid(shape, chunks))


def test_a_grid_of_10_to_the_18_chunks_costs_nothing_to_begin():
    grid = chunking.chunk_grid((10**9, 10**9), (1, 1))
    assert [next(grid), next(grid)] == [(0, 0), (0, 1)]
    assert chunking.n_chunks((10**9, 10**9), (1, 1)) == 10**18


@pytest.mark.parametrize("shape", [10.0, np.int8(10), [np.uint64(10)], (10,), np.array([10])])
def test_a_shape_may_be_spelled_in_many_ways(shape):
    found = chunking.normalize_shape(shape)
    assert found == (10,)
    assert type(found[0]) is int


@each_of("shape", [-1, True, (2, False), 1.5, math.nan, math.inf, 10**30, 2**63, ["10"], [None], 1j, "10", [[10]]])
def test_a_shape_that_can_only_be_wrong_is_refused(shape):
    with pytest.raises(ValueError, match="shape holds"):
        chunking.normalize_shape(shape)


@pytest.mark.parametrize("shape", [None, object()])
def test_a_shape_of_another_type_is_a_type_error(shape):
    with pytest.raises(TypeError):
        chunking.normalize_shape(shape)


@each_of("chunks", [0, -2, (5, 0), (5, True), (5, 2.5), (5, math.nan), "55", (5, 10**30)])
def test_chunks_that_can_only_be_wrong_are_refused(chunks):
    with pytest.raises(ValueError, match="chunks holds"):
        chunking.normalize_chunks(chunks, (10, 10), 8)


def test_more_chunks_than_axes_are_refused():
    with pytest.raises(ValueError, match=r"has 3 lengths, and shape \(10, 10\) has 2"):
        chunking.normalize_chunks((1, 2, 3), (10, 10), 8)


def test_an_axis_of_no_length_has_chunks_that_can_be_divided_by():
    assert chunking.normalize_chunks(False, (0, 5), 8) == (1, 5)
    assert chunking.normalize_chunks((-1, 2), (0, 5), 8) == (1, 2)
