"""The sagas whose schedules are run, by family."""

from __future__ import annotations

from saga_model.shapes import ALWAYS, Both, Either, NoReturn, Scenario, Step

A, B, C, D, E = (Step(name) for name in "ABCDE")
REFUSED = "failed"


def refusing(name: str, **options: object) -> Step:
    return Step(name, refusals=ALWAYS, **options)  # type: ignore[arg-type]


STRAIGHT = Scenario("three", (A, B, C))

PLAIN = (
    Scenario("one", (A,)),
    Scenario("two", (A, B)),
    STRAIGHT,
    Scenario("five", (A, B, C, D, E)),
    Scenario("one_refused", (refusing("A"),), ends=REFUSED),
    Scenario("three_refused", (A, B, refusing("C")), ends=REFUSED),
    Scenario("five_refused", (A, B, C, D, refusing("E")), ends=REFUSED),
    Scenario("retried", (A, Step("B", refusals=1, attempts=2), refusing("C", attempts=2)), ends=REFUSED),
    Scenario("undo_retried", (A, Step("B", undo_refusals=1), refusing("C")), ends=REFUSED),
    Scenario("undo_later", (A, Step("B", undo_refusals=3), refusing("C")), ends=REFUSED),
    Scenario("undo_never", (A, Step("B", undo_refusals=ALWAYS), refusing("C")), ends="compensation_failed"),
    Scenario("deadline", (A, B, C), deadline=100.0),
)
STREAMED = (
    Scenario("pulled", (A, B), mode="pull"),
    Scenario("pulled_refused", (A, B, refusing("C")), mode="pull", ends=REFUSED),
    Scenario("pushed", (A, B), mode="push"),
    Scenario("pushed_refused", (A, B, refusing("C")), mode="push", ends=REFUSED),
    Scenario("pushed_both", (Both((A, B)), C), mode="push"),
)


def _with_policy(policy: str) -> tuple[Scenario, ...]:
    a, b, c = (Step(name, policy) for name in "ABC")
    return (
        Scenario(f"{policy}_all", (a, b, c)),
        Scenario(f"{policy}_refused", (a, b, refusing("C")), ends=REFUSED),
        Scenario(f"{policy}_both", (A, Both((b, C)), refusing("D", on_unknown=policy)), ends=REFUSED),
        Scenario(f"{policy}_either", (A, Either(b, c), D)),
    )


UNKNOWN = (
    *_with_policy("compensate"),
    *_with_policy("retry"),
    *_with_policy("park"),
    Scenario("policies", (Step("A", "retry"), Step("B", "compensate"), Step("C", "park"))),
)
FALLBACK = (
    Scenario("either", (A, Either(B, C), D)),
    Scenario("either_second", (A, Either(refusing("B"), C), D)),
    Scenario("either_neither", (A, Either(refusing("B"), refusing("C"))), ends=REFUSED),
    Scenario("either_refused", (Either(A, B), C, refusing("D")), ends=REFUSED),
    Scenario("second_refused", (A, Either(refusing("B"), C), refusing("D")), ends=REFUSED),
    Scenario("eithers", (Either(A, B), Either(refusing("C"), D), refusing("E")), ends=REFUSED),
)
_LASTING = Step("B", undo_refusals=ALWAYS)
PARALLEL = (
    Scenario("both", (Both((A, B)),)),
    Scenario("both_between", (A, Both((B, C)), D)),
    Scenario("both_refused", (A, Both((B, refusing("C"))), D), ends=REFUSED),
    Scenario("both_then_refused", (A, Both((B, C)), refusing("D")), ends=REFUSED),
    Scenario("three_at_once", (Both((A, B, C)), refusing("D")), ends=REFUSED),
    Scenario("limited", (Both((A, B, C), limit=1), D)),
    Scenario("both_with_fallback", (A, Both((Either(refusing("B"), C), D)), refusing("E")), ends=REFUSED),
    Scenario(
        "both_undo_never", (A, Both((Step("B", undo_refusals=ALWAYS), C)), refusing("D")), ends="compensation_failed"
    ),
    Scenario("both_retried", (Both((A, Step("B", "compensate", refusals=1, attempts=2))), C)),
    Scenario("both_deadline", (Both((A, Step("B", refusals=1, attempts=2), C)), D), deadline=100.0),
    Scenario("both_all_refused", (A, Both((refusing("B"), refusing("C")))), ends=REFUSED),
)
_STUBBORN = Step("C", refusals=2, attempts=2)
PIVOT = (
    Scenario("pivot", (A, NoReturn(B), Step("C", attempts=2))),
    Scenario("pivot_refused", (A, NoReturn(refusing("B")), Step("C", attempts=2)), ends=REFUSED),
    Scenario("behind_retried", (A, NoReturn(B), Step("C", refusals=1, attempts=2), Step("D", attempts=2))),
    Scenario("behind_later", (A, NoReturn(B), _STUBBORN)),
    Scenario("behind_never", (A, NoReturn(B), refusing("C", attempts=2)), ends="running"),
    Scenario("pivot_either", (A, NoReturn(Either(refusing("B"), C)), Step("D", attempts=2))),
    Scenario("behind_both", (NoReturn(A), Both((Step("B", attempts=2), Step("C", refusals=1, attempts=2))))),
    Scenario("pivot_park", (A, NoReturn(Step("B", "park")), Step("C", "park", attempts=2))),
    Scenario("pivot_compensate", (A, NoReturn(Step("B", "compensate")), Step("C", attempts=2))),
    Scenario("mixture", (A, Either(refusing("B"), C), Both((D, E)), NoReturn(Step("F")), Step("G", attempts=2))),
    Scenario("pivot_deadline", (A, NoReturn(B), Step("C", attempts=2)), deadline=100.0),
)

FAMILIES = {
    "plain": PLAIN,
    "streamed": STREAMED,
    "unknown": UNKNOWN,
    "fallback": FALLBACK,
    "parallel": PARALLEL,
    "pivot": PIVOT,
}
