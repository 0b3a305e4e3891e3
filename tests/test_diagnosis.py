"""Causes are put in order: what is seen, what predicts the numbers, what may be a consequence."""

from refimpl.verification.crosscheck import Report, as_text, causes, diagnosis, random_case, records
from refimpl.verification.crosscheck.calls import Finding
from refimpl.verification.crosscheck.judge import judge
from refimpl.verification.crosscheck.records import Record
from refimpl.verification.crosscheck.reference import make_reference


def test_nothing_of_other_images_explains_a_wrong_single_one():
    found = [Finding("batch_global_stopping", ""), Finding("too_few_forward_iterations", "")]
    records = []
    for seed in (0, 1, 2):
        reference = make_reference(random_case(seed, only={"images": 1 + seed}))
        wrong = {"fixed_point": 2 * reference.outputs["fixed_point"]}
        record = Record(seed, "fixed_point", reference, wrong, judge(reference, wrong), ())
        records.append(record)
    first = [
        diagnosis.stage_report("fixed_point", some, list(found), None, 0.0).causes[0]
        for some in (records, records[1:])
    ]
    assert first == ["too_few_forward_iterations", "batch_global_stopping"]


def test_causes_that_explain_some_outputs_only_are_named_with_their_share():
    alone, both = ("sign",), ("sign", "factor_two")
    found = causes.covering([both, alone, ("bias_ignored",), ()])
    assert [f.cause for f in found] == ["sign", "bias_ignored"]
    assert found[0].message == "explains 2 of 4 wrong outputs"


def test_later_stage_without_a_cause_of_its_own_may_come_from_the_first():
    first = records.StageReport("apply", "DISAGREES", causes=("sign",))
    later = records.StageReport("fixed_point", "DISAGREES", causes=("too_few_forward_iterations",))
    assert diagnosis.inheriting(later, first).inherits == "apply"
    other = later._replace(causes=("factor_two",))
    assert diagnosis.inheriting(other, first) == other


def findings(*slugs):
    return [Finding(slug, "") for slug in slugs]


def test_causes_that_predict_the_same_numbers_are_called_ambiguous():
    found = findings("times_batch", "factor:filters", "hidden_precision")
    assert diagnosis.rivals(("times_batch", "factor:filters"), found) == ("factor:filters",)
    assert diagnosis.rivals(("stale_state", "times_batch"), found) == ()
    assert diagnosis.rivals(("jacobian_free",), findings("jacobian_free")) == ()
    stage = records.StageReport(
        "vjp", "DISAGREES", causes=("times_batch",), ambiguous=("factor:filters",), explanation="x"
    )
    text = as_text(Report("mine", 0, "float64", 1, 1, 0.0, (stage,), {}))
    assert "times_batch (ambiguous)" in text and "factor:filters: the reference times" in text
    assert text.endswith("first wrong stage: vjp (times_batch or factor:filters)")


def test_finite_differences_are_not_taken_for_a_lower_precision():
    seen, numbers = findings("not_linear"), findings("hidden_precision")
    assert diagnosis.in_order("hvp", seen, numbers, False)[0] == "not_linear"
    assert diagnosis.in_order("hypergradient", seen, numbers, False)[0] == "hidden_precision"


def test_sign_of_some_numbers_comes_after_what_was_seen():
    some = [Finding("hidden_precision", "explains 2 of 4 wrong outputs")]
    for single in (True, False):
        order = diagnosis.in_order("apply", findings("leaks_between_images"), some, single)
        assert order == ("leaks_between_images", "hidden_precision")


def test_factor_without_a_name_gives_way_to_causes_with_one():
    assert causes.without_numbers(("data_term_factor:2", "data_term_factor:two")) == (
        "data_term_factor:two",
    )
    assert causes.without_numbers(("factor:1.25",)) == ("factor:1.25",)
    assert causes.without_numbers(("truncated_neumann:8",)) == ("truncated_neumann:8",)
