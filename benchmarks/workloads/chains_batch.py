"""Log likelihood of many sequences under a hidden Markov model, in float64, on one thread."""

from __future__ import annotations

from benchmarks import hidden_markov
from benchmarks.harness import Contender, Workload

CALLS = 20  # a turn: one call is a few milliseconds


def contender(name: str, key: str, note: str = "", headline: bool = True) -> Contender:
    def set_up(_):
        ready = hidden_markov.CONTESTANTS[key]

        def run(chains: hidden_markov.Chains, _: int) -> float:
            call = ready(chains)
            for _ in range(CALLS):
                found = call()
            return found

        return run

    return Contender(name, set_up, note=note, headline=headline)


def score(chains: hidden_markov.Chains, answer: float) -> dict[str, float]:
    exact = hidden_markov.CONTESTANTS["bayesunmix float64"](chains)()
    return {"off bayesunmix's, nats": abs(answer - exact)}


CONTENDERS = (
    contender("bayesunmix", "bayesunmix float64"),
    contender("hmmlearn", "hmmlearn (scaling)", note='`implementation="scaling"`'),
    contender("dynamax", "dynamax float64"),
    contender("bayesunmix, float32", "bayesunmix float32", headline=False),
    contender("dynamax, float32", "dynamax float32", headline=False),
)

WORKLOAD = Workload(
    title=f"Hidden Markov likelihood, many sequences ({CALLS} calls)",
    problem=hidden_markov.Chains.simulated,
    contenders=CONTENDERS,
    score=score,
    sizes={"full": {"sequences": 100, "steps": 1000}, "short": {"sequences": 20, "steps": 500}},
)
