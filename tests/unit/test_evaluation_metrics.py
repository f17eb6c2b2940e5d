"""The metrics are what docs/evaluation.md says: figures reckoned by hand, and what must always hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3node.evaluation.ablation.record import Record
from m3node.evaluation.metrics.bootstrap import (
    COVERAGE,
    MIN_PATIENTS,
    REPLICATES,
    SEED,
    Value,
    difference,
    evaluate,
    resample,
)
from m3node.evaluation.metrics.definitions import METRICS, Metric
from m3node.evaluation.metrics.froc import FROC_IOU, froc
from m3node.evaluation.report.tables import shown
from made_records import box_at, found, known, record

BY_KEY = {metric.key: metric for metric in METRICS}
GOOD = [key for key in BY_KEY if key.startswith(("best_iou", "recall"))]


def value(key: str, *records: Record) -> float | None:
    return evaluate(BY_KEY[key], records).value


def test_the_best_iou_of_a_slice_is_that_of_the_best_box_with_the_box_around_all_its_lesions() -> None:
    # Lesions at columns 0–10 and 10–20: the union box is 10 × 20. On slice 0 a box of half of it, on slice 1 none.
    case = record(truth=[known(0), known(10)], boxes=[box_at(0), box_at(100)])
    assert value("best_iou_2d", case) == pytest.approx((0.5 + 0.0) / 2)
    assert value("silent_2d", case) == 0.5
    # Down and to the right of each other: the union box is 20 × 30, and the better of two boxes counts.
    apart = record(truth=[known(20), known(0, down=10)], boxes=[box_at(5, down=15), box_at(20), box_at(25, k=1)])
    assert value("best_iou_2d", apart) == pytest.approx((100 / 600 + 50 / 650) / 2)


def test_a_box_is_hallucinated_when_it_shows_nothing_of_the_union_box() -> None:
    case = record(truth=[known(0)], boxes=[box_at(0), box_at(50), box_at(0, k=2)])
    assert value("hallucination_2d", case) == pytest.approx(2 / 3)
    # 0.20 columns of overlap are 2.0 of 198.0 pixels, 0.19 are 1.9 of 198.1: the published bound is 0.01.
    assert value("hallucination_2d", record(truth=[known(0)], boxes=[box_at(9.80)])) == 0.0
    assert value("hallucination_2d", record(truth=[known(0)], boxes=[box_at(9.81)])) == 1.0


def test_no_box_at_all_is_a_miss_and_not_the_absence_of_hallucination() -> None:
    silent = record(truth=[known(0)], dice=0.0)
    assert value("hallucination_2d", silent) is None
    assert value("hallucination_3d", silent) is None
    assert value("precision_3d_0.3", silent) is None
    assert [value(key, silent) for key in GOOD] == [0.0] * len(GOOD)
    assert value("silent_2d", silent) == 1.0
    assert value("dice_3d", silent) == 0.0


def test_recall_and_precision_count_pairs_over_true_and_over_found_lesions_of_all_cases() -> None:
    # Shifted by 5 of 10 columns the IoU is 1/3, by 2 it is 2/3.
    one = record("a", truth=[known(0), known(40)], lesions=[found(5), found(80)])
    two = record("b", truth=[known(0)], lesions=[found(2)])
    assert value("recall_3d_0.1", one, two) == pytest.approx(2 / 3)
    assert value("recall_3d_0.3", one, two) == pytest.approx(2 / 3)
    assert value("recall_3d_0.5", one, two) == pytest.approx(1 / 3)
    assert value("precision_3d_0.3", one, two) == pytest.approx(2 / 3)
    assert value("precision_3d_0.5", one, two) == pytest.approx(1 / 3)
    assert value("best_iou_3d", one, two) == pytest.approx((1 / 3 + 0 + 2 / 3) / 3)
    assert value("hallucination_3d", one, two) == pytest.approx(1 / 3)


def test_one_box_answers_one_lesion_of_its_slice_and_one_lesion_one_box() -> None:
    twice = record(truth=[known(0)], boxes=[box_at(0), box_at(1)])
    assert value("recall_2d_0.5", twice) == 0.5  # slice 1 has the lesion, too, and no box
    assert value("precision_2d_0.5", twice) == 0.5
    # A box where the lesion is, but on a slice that it does not reach, is wrong as well.
    beyond = record(truth=[known(0)], boxes=[box_at(0), box_at(5, k=1), box_at(0, k=2), box_at(0, k=5)])
    assert [value(f"precision_2d_{level}", beyond) for level in (0.1, 0.3, 0.5)] == [0.5, 0.5, 0.25]
    assert [value(f"recall_2d_{level}", beyond) for level in (0.1, 0.3, 0.5)] == [1.0, 1.0, 0.5]


def test_false_ones_are_counted_in_healthy_volumes_only() -> None:
    ill = record("a", truth=[known(0)], lesions=[found(80)], boxes=[box_at(80)])
    healthy = record("b", truth=[], lesions=[found(0), found(30), found(60)], boxes=[box_at(0)])
    empty = record("c", truth=[])
    assert value("false_lesions", ill, healthy, empty) == 1.5
    assert value("false_boxes", ill, healthy, empty) == 0.5
    assert value("hallucination_2d", healthy) == 1.0


def test_dice_is_the_mean_over_cases_with_lesions_and_the_livers_over_those_with_a_true_liver() -> None:
    cases = [
        record("a", truth=[known(0), known(40)], dice=0.6, liver_dice=0.9),
        record("b", truth=[known(0)], dice=0.0, liver_dice=None),
        record("c", truth=[], liver_dice=0.7),
    ]
    assert value("dice_3d", *cases) == pytest.approx(0.3)
    assert value("liver_dice", *cases) == pytest.approx(0.8)
    assert value("dice_3d", cases[2]) is None


def test_unread_views_are_counted_over_all_views_and_seconds_over_cases() -> None:
    cases = [
        record("a", truth=[], views=(10, 7), seconds=2.0),
        record("b", truth=[known(0)], views=(90, 90), seconds=5.0),
        record("c", truth=[], views=(0, 0), seconds=0.5),
    ]
    assert value("unread", *cases) == pytest.approx(3 / 100)
    assert value("seconds", *cases) == pytest.approx(2.5)
    assert value("unread", cases[2]) is None


def test_on_one_slice_what_is_measured_in_volumes_is_left_out() -> None:
    assert [metric.key for metric in METRICS if not metric.needs_volume] == [
        *("best_iou_2d", "hallucination_2d", "silent_2d"),
        *(f"{name}_2d_{level}" for name in ("recall", "precision") for level in (0.1, 0.3, 0.5)),
        *("unread", "seconds"),
    ]


def test_cases_without_truth_are_in_no_metric() -> None:
    unknown = record("u", truth=None, lesions=[found(0)], boxes=[box_at(0)])
    ill = record("a", truth=[known(0)], lesions=[found(5)], boxes=[box_at(5)], dice=0.4)
    healthy = record("b", truth=[])
    for metric in METRICS:
        assert value(metric.key, unknown) is None, metric.key
        assert evaluate(metric, [unknown, ill, healthy]) == evaluate(metric, [ill, healthy]), metric.key
        assert difference(metric, [unknown], [unknown]).patients == 0, metric.key


@given(places=st.lists(st.integers(0, 20).map(lambda n: 12 * n), min_size=1, max_size=5, unique=True), data=st.data())
def test_what_is_found_exactly_is_perfect_in_any_order(places: list[int], data: st.DataObject) -> None:
    order = data.draw(st.permutations(places))
    case = record(
        truth=[known(at) for at in places],
        lesions=[found(at) for at in order],
        boxes=[box_at(at, k) for at in order for k in (0, 1)],
        dice=1.0,
    )
    for key in GOOD:
        if key != "best_iou_2d":  # of the union box, which one lesion's box is not
            assert value(key, case) == 1.0, key
    assert value("precision_3d_0.5", case) == value("precision_2d_0.5", case) == 1.0
    assert value("hallucination_3d", case) == value("silent_2d", case) == 0.0


@given(
    truth=st.lists(st.integers(0, 60), max_size=4),
    lesions=st.lists(st.integers(0, 60), max_size=4),
    data=st.data(),
)
def test_no_metric_depends_on_the_order_of_lesions_or_leaves_its_range(
    truth: list[int], lesions: list[int], data: st.DataObject
) -> None:
    case = record(
        truth=[known(at) for at in truth], lesions=[found(at) for at in lesions], boxes=[box_at(at) for at in lesions]
    )
    shuffled = record(
        truth=[known(at) for at in data.draw(st.permutations(truth))],
        lesions=[found(at) for at in data.draw(st.permutations(lesions))],
        boxes=[box_at(at) for at in data.draw(st.permutations(lesions))],
    )
    for metric in METRICS:
        whole = value(metric.key, case)
        assert whole == pytest.approx(value(metric.key, shuffled)), metric.key
        if whole is not None and metric.key not in {"false_lesions", "false_boxes"}:
            assert 0.0 <= whole <= 1.0, metric.key
    recalls = [value(f"recall_3d_{level}", case) or 0.0 for level in (0.1, 0.3, 0.5)]
    assert recalls == sorted(recalls, reverse=True)


def patients(terms: list[tuple[int, int]]) -> dict[str, tuple[float, float]]:
    return {f"p{number:02d}": (float(above), float(below)) for number, (above, below) in enumerate(terms)}


def test_there_is_no_interval_below_ten_patients() -> None:
    nine = resample(patients([(1, 2)] * (MIN_PATIENTS - 1)))
    assert (nine.value, nine.low, nine.high, nine.patients) == (0.5, None, None, 9)
    ten = resample(patients([(1, 2)] * MIN_PATIENTS))
    assert (ten.value, ten.low, ten.high) == (0.5, 0.5, 0.5)


def test_only_patients_that_have_something_of_a_metric_count_for_its_interval() -> None:
    terms = {**patients([(1, 2)] * 9), **{f"healthy{n}": (0.0, 0.0) for n in range(5)}}
    assert resample(terms).patients == 9
    assert resample(terms).low is None


def test_cases_of_one_patient_are_resampled_together() -> None:
    cases = [record(f"{n}", truth=[known(0)], lesions=[found(0)], patient=f"p{n % 5}") for n in range(20)]
    result = evaluate(BY_KEY["recall_3d_0.3"], cases)
    assert (result.value, result.low, result.patients) == (1.0, None, 5)


def test_the_interval_is_the_middle_95_percent_of_resampled_patients() -> None:
    # Of 16 patients half are right: those right among 16 drawn are binomial, and 4 and 12 its quantiles.
    result = resample(patients([(0, 1)] * 8 + [(1, 1)] * 8))
    assert (result.value, result.low, result.high) == (0.5, 4 / 16, 12 / 16)


def test_what_is_resampled_are_sums_so_that_patients_with_much_weigh_much() -> None:
    # Of 12 drawn 3 to 9 are of the second kind: 27 of 27 + 9, 81 of 81 + 3.
    result = resample(patients([(0, 1)] * 6 + [(9, 9)] * 6))
    assert (result.value, result.low, result.high) == (54 / 60, 27 / 36, 81 / 84)


def test_the_documentation_says_how_intervals_are_made() -> None:
    words = " ".join((Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8").split())
    assert f"{COVERAGE:.0%} percentile intervals".replace("%", " %") in words
    assert f"{REPLICATES:,} resamplings of patients (seed {SEED})" in words
    assert f"fewer than {MIN_PATIENTS} patients" in words
    assert f"at 3-D IoU ≥ {FROC_IOU}" in words


@given(
    terms=st.lists(
        st.integers(1, 5).flatmap(lambda below: st.tuples(st.integers(0, below), st.just(below))),
        min_size=10,
        max_size=14,
    ),
    data=st.data(),
)
def test_an_interval_holds_its_value_stays_in_range_and_knows_no_order(
    terms: list[tuple[int, int]], data: st.DataObject
) -> None:
    result = resample(patients(terms))
    assert result == resample(patients(data.draw(st.permutations(terms))))
    assert result.value is not None
    assert result.low is not None
    assert result.high is not None
    assert 0.0 <= result.low <= result.value + 1e-9
    assert result.value - 1e-9 <= result.high <= 1.0
    assert result == resample(patients(terms))  # seeded


def test_a_difference_of_a_condition_with_itself_is_nothing_and_resamples_the_same_patients() -> None:
    cases = [record(f"{n:02d}", truth=[known(0)], lesions=[found(0 if n % 3 else 80)]) for n in range(12)]
    metric: Metric = BY_KEY["recall_3d_0.3"]
    same = difference(metric, cases, cases)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    none = [record(f"{n:02d}", truth=[known(0)]) for n in range(12)]
    better = difference(metric, cases, none)
    assert better.value == pytest.approx(8 / 12)
    assert better.low is not None
    assert better.low > 0
    assert difference(metric, none, cases).value == pytest.approx(-8 / 12)


def test_a_difference_is_of_the_patients_that_are_in_both_and_have_something_of_the_metric_in_one() -> None:
    metric = BY_KEY["precision_3d_0.3"]
    ours = [record(f"{n:02d}", truth=[known(0)], lesions=[found(0)]) for n in range(12)]
    # Half find nothing, a quarter find it, and a quarter something else; one more is in these alone.
    theirs = [
        record(f"{n:02d}", truth=[known(0)], lesions=[] if n < 6 else [found(0 if n % 2 else 80)]) for n in range(13)
    ]
    result = difference(metric, ours, theirs)
    assert (result.value, result.patients) == (pytest.approx(1.0 - 0.5), 12)
    nothing = [record(f"{n:02d}", truth=[]) for n in range(12)]
    assert difference(metric, ours, nothing) == Value(None, None, None, 12)
    assert difference(metric, nothing, nothing) == Value(None, None, None, 0)


def test_a_difference_of_paired_patients_is_surer_than_either_value() -> None:
    ours = [record(f"{n:02d}", truth=[known(0)], lesions=[found(0)] if n % 2 else []) for n in range(20)]
    theirs = [*ours[:-1], record("19", truth=[known(0)])]  # one patient fewer
    result, alone = difference(BY_KEY["recall_3d_0.3"], ours, theirs), evaluate(BY_KEY["recall_3d_0.3"], ours)
    assert result.value == pytest.approx(1 / 20)
    assert None not in (result.low, result.high, alone.low, alone.high)
    # That one is drawn 0 to 3 times of 20 (0.36, 0.38, 0.19, 0.06 …); unpaired it would reach from -0.25.
    assert (result.low, result.high) == (0.0, pytest.approx(3 / 20))


def test_the_free_response_curve_falls_with_the_score() -> None:
    cases = [
        record("a", truth=[known(0), known(40)], lesions=[found(0, score=0.9), found(80, score=0.5)]),
        record("b", truth=[], lesions=[found(0, score=0.7)]),
    ]
    points = [(point.score, point.recall, point.false_per_volume) for point in froc(cases)]
    assert points == [(0.9, 0.5, 0.0), (0.7, 0.5, 0.5), (0.5, 0.5, 1.0)]
    # Who has no truth adds neither lesions nor volumes nor false ones.
    unknown = record("u", truth=None, lesions=[found(0, score=0.8)])
    assert froc([*cases, unknown]) == froc(cases)
    assert froc([unknown]) == ()
    assert froc([record(truth=[known(0)])]) == ()


def test_the_free_response_curve_pairs_anew_at_each_score_at_an_overlap_of_a_tenth() -> None:
    # 1/3 and 1/19 of overlap; then the better answer to the same lesion comes with a lower score.
    near, far = found(5, score=0.9), found(49, score=0.8)
    case = record("a", truth=[known(0), known(40), known(80)], lesions=[near, far, found(0, score=0.7)])
    other = record("b", truth=[], lesions=[])
    points = [(point.score, point.recall, point.false_per_volume) for point in froc([case, other])]
    assert points == [(0.9, 1 / 3, 0.0), (0.8, 1 / 3, 0.5), (0.7, 1 / 3, 1.0)]


def test_values_are_written_with_their_interval_and_without_a_minus_at_zero() -> None:
    assert shown(Value(0.5, 0.25, 0.754, 12)) == "0.50 (0.25…0.75)"
    assert shown(Value(-0.001, -0.25, 0.001, 12), signed=True) == "+0.00 (-0.25…+0.00)"
    assert shown(Value(0.5, None, None, 3)) == "0.50"
    assert shown(Value(None, None, None, 0)) == "–"
